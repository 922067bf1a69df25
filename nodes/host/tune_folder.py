"""Where tunes and the snapshots of tunings are kept: ComfyUI's `models/ei2_tunes`, or other folders that the user's
extra model paths give under that name."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path

import folder_paths

from ...ei2.tensor_file import NotWritten, why_not_written
from ...ei2.user_text import printable_name, short
from .plain_text import is_markup

KEY = "ei2_tunes"
SNAPSHOTS = "snapshots"  # a subfolder of its own
EXTENSION = ".safetensors"
FORBIDDEN = re.compile(r'[<>:"|?*\x00-\x1f]')  # in names on Windows
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)  # whole names there
MOST_BYTES = 160  # of a name: file systems take 255, and a number, an ending and a temporary name's own part follow
MOST_LETTERS = 200  # of a path from the root on Windows, which takes 260

folder_paths.add_model_folder_path(KEY, os.path.join(folder_paths.models_dir, KEY))


def list_tunes() -> list[str]:
    """Names of the saved tunes, with their subfolders, sorted."""
    return [name for name in _names() if Path(name).parts[0] != SNAPSHOTS]


def list_snapshots() -> list[str]:
    """Names of the snapshots, without their folder, sorted."""
    return [str(Path(*Path(name).parts[1:])) for name in _names() if Path(name).parts[0] == SNAPSHOTS]


def resolve_tune(name: str) -> Path:
    """The file of a name that `list_tunes` gives. Raises `ValueError` where there is none."""
    if not name:
        raise ValueError('No tune is chosen: keep one with "EI2 Save Tune" first, then choose it.')
    path = folder_paths.get_full_path(KEY, name) if name.endswith(EXTENSION) else None
    if path is None:
        raise ValueError(
            f"There is no tune {short(name)} in models/{KEY}: choose another, or press R to refresh the list."
        )
    return Path(path)


def resolve_snapshot(name: str) -> Path:
    """The file of a name that `list_snapshots` gives. Raises `ValueError` where there is none."""
    path = folder_paths.get_full_path(KEY, os.path.join(SNAPSHOTS, name)) if name.endswith(EXTENSION) else None
    if path is None:
        raise ValueError(
            f"There is no snapshot {short(name)} in models/{KEY}/{SNAPSHOTS}: choose another, or none to start anew."
        )
    return Path(path)


def snapshot_path(name: str) -> Path:
    """Where a snapshot of this name is to be written."""
    return Path(folder_paths.get_folder_paths(KEY)[0]) / SNAPSHOTS / f"{name}{EXTENSION}"


def check_prefix(prefix: str) -> None:
    """Raises `ValueError` for the beginning of a file's name that no file can have, or that leads out of the folder."""
    root = Path(folder_paths.get_folder_paths(KEY)[0])
    path = Path(os.path.abspath(root / prefix))
    unprintable = printable_name(prefix) != prefix
    odd = unprintable or FORBIDDEN.search(prefix) or "\\" in prefix and os.sep == "/"
    if not prefix.strip() or prefix[-1] in "/\\" or odd:
        raise ValueError(f"{short(prefix)} is no name for a file: use letters, digits and _, with / for subfolders.")
    if not path.is_relative_to(root) or path == root:
        raise ValueError(f"{short(prefix)} leads out of models/{KEY}: use a plain name, with / for subfolders.")
    parts = path.relative_to(root).parts
    if parts[0] == SNAPSHOTS:
        raise ValueError(f"The subfolder {SNAPSHOTS} is for the snapshots of tunings: choose another name.")
    for part in parts:
        if RESERVED.fullmatch(part) or part[-1] in ". ":
            better = f"my_{short(part.strip('. '), quotes=False)}"
            raise ValueError(f"{short(part)} is no name for a file on Windows: choose another, such as {better}.")
        if len(part.encode("utf-8", "surrogatepass")) > MOST_BYTES:
            raise ValueError(f"'{part[:20]}…' is {len(part)} letters long, too long for a file's name: shorten it.")
    if os.name == "nt" and len(str(path)) > MOST_LETTERS:
        raise ValueError(
            f"The path {short(str(path))} is {len(str(path))} letters long, too long for Windows: shorten it."
        )
    check_writable(path.parent)


def check_writable(folder: Path) -> None:
    """Raises `ValueError` where no file can be made in a folder, which need not exist yet: better at once than when
    there is something to save."""
    there = next(one for one in (folder, *folder.parents) if one.exists())
    if not there.is_dir():
        raise ValueError(f"{there} is a file, where a folder is needed: choose another name, or move it away.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(
            f"Nothing can be written to the folder {there}: allow it, or choose another in your model paths."
        )


def new_tune_paths(prefix: str) -> Iterator[Path]:
    """Files to be tried one after another, the first of which does not exist yet: the prefix and a number, as the
    host's own nodes name what they save; %date% and the like are replaced as there. Raises as `check_prefix`, and
    `NotWritten` where the folder cannot be made."""
    check_prefix(prefix)
    root = folder_paths.get_folder_paths(KEY)[0]
    try:
        folder, name, first, _, _ = folder_paths.get_save_image_path(prefix, root)
    except OSError as error:
        raise NotWritten(f"There can be no folder for '{prefix}' in models/{KEY}: {why_not_written(error)}") from error
    return (Path(folder) / f"{name}_{number:05}_{EXTENSION}" for number in itertools.count(first))


def shown(path: Path) -> str:
    """The file as the user knows it, from the folder's name on."""
    root = next((Path(one) for one in folder_paths.get_folder_paths(KEY) if path.is_relative_to(one)), path.parent)
    return f"{root.name}/{path.relative_to(root).as_posix()}"


def _names() -> list[str]:
    names = folder_paths.get_filename_list(KEY)
    return [name for name in names if name.endswith(EXTENSION) and not is_markup(name)]
