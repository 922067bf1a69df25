"""The folders of ComfyUI that the pack reads and writes: input videos, tunes, snapshots, cached inversions."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import folder_paths
import psutil

from ..ei2 import temporary
from ..ei2.temporary import Litter
from ..ei2.tensor_file import NotWritten, why_not_written
from ..ei2.user_text import printable_name, short
from .ui import is_markup

# The types that FFmpeg and Pillow read. The host uses the machine's own list of
# file types, which is usually incomplete.
VIDEO_SUFFIXES = set(
    ".3g2 .3gp .amv .apng .asf .avi .divx .dv .f4v .flv .gif .h264 .h265 .264 .265 .hevc .ivf .m1v .m2t .m2ts .m2v "
    ".m4v .mjpeg .mjpg .mkv .mod .mov .mp4 .mpe .mpeg .mpg .mts .mxf .nut .obu .ogm .ogv .qt .rm .rmvb .tod .ts .vob "
    ".webm .webp .wmv .y4m".split()
)
TUNES = "ei2_tunes"
SNAPSHOTS = "snapshots"  # a subfolder of its own
EXTENSION = ".safetensors"
FORBIDDEN = re.compile(r'[<>:"|?*\x00-\x1f]')  # characters not allowed in names on Windows
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)  # names reserved there
MOST_BYTES = 160  # of a name: file systems allow 255, and a number, an extension and a temporary suffix are added
MOST_LETTERS = 200 if os.name == "nt" else 900  # of an absolute path; Windows allows 260, macOS 1024
folder_paths.add_model_folder_path(TUNES, os.path.join(folder_paths.models_dir, TUNES))


def list_input_videos() -> list[str]:
    """Names of the videos and animated pictures directly in the input folder, sorted."""
    folder = Path(folder_paths.get_input_directory())
    # os.path's: `Path.is_file` raises for a link into a folder that may not be entered
    names = [entry.name for entry in folder.iterdir() if os.path.isfile(entry)] if folder.is_dir() else []
    videos = folder_paths.filter_files_content_types(names, ["video"])
    videos = {*videos, *(name for name in names if Path(name).suffix.lower() in VIDEO_SUFFIXES)}
    return sorted(name for name in videos if not is_markup(name))


def resolve_input(name: str) -> Path:
    """The file of a name: "clip.mp4", "subfolder/clip.mp4", or "clip.mp4 [output]" for ComfyUI's other folders.

    Raises ValueError for an empty name, a path outside the folder, and a missing file.
    """
    _check_name(name)
    if not name:
        raise ValueError("No video is chosen: upload one, or put a file into ComfyUI's input folder and choose it.")
    relative, folder = folder_paths.annotated_filepath(name)
    folder = Path(os.path.abspath(folder or folder_paths.get_input_directory()))
    # abspath, not resolve: a folder linked into the input folder may be elsewhere.
    path = Path(os.path.abspath(folder / relative))
    if not path.is_relative_to(folder):
        raise ValueError(f"'{name}' is outside ComfyUI's {folder.name} folder: copy the video into it and choose it.")
    if not os.path.isfile(path):
        raise ValueError(
            f"There is no file '{relative}' in ComfyUI's {folder.name} folder: "
            "upload the video again or choose another."
        )
    return path


def list_tunes() -> list[str]:
    """Names of the saved tunes, with their subfolders, sorted."""
    return [name for name in _names() if Path(name).parts[0] != SNAPSHOTS]


def list_snapshots() -> list[str]:
    """Names of the snapshots, without their folder, sorted."""
    return [str(Path(*Path(name).parts[1:])) for name in _names() if Path(name).parts[0] == SNAPSHOTS]


def resolve_tune(name: str) -> Path:
    """The file of a name from `list_tunes`. Raises `ValueError` if there is none."""
    _check_name(name)
    if not name:
        raise ValueError('No tune is chosen: save one with "EI2 Save Tune" first, then choose it.')
    path = folder_paths.get_full_path(TUNES, name) if name.endswith(EXTENSION) else None
    if path is None:
        raise ValueError(
            f"There is no tune {short(name)} in models/{TUNES}: choose another, or press R to refresh the list."
        )
    return Path(path)


def resolve_snapshot(name: str) -> Path:
    """The file of a name from `list_snapshots`. Raises `ValueError` if there is none."""
    _check_name(name)
    path = folder_paths.get_full_path(TUNES, os.path.join(SNAPSHOTS, name)) if name.endswith(EXTENSION) else None
    if path is None:
        raise ValueError(
            f"There is no snapshot {short(name)} in models/{TUNES}/{SNAPSHOTS}: choose another, or none to start again."
        )
    return Path(path)


def _check_name(name) -> None:
    if not isinstance(name, str):
        raise ValueError(f"{short(name)} is not the name of a file: choose one from the list.")


def snapshot_path(name: str) -> Path:
    """The path for a snapshot of this name."""
    return Path(folder_paths.get_folder_paths(TUNES)[0]) / SNAPSHOTS / f"{name}{EXTENSION}"


def check_prefix(prefix: str) -> None:
    """Raises `ValueError` for an invalid start of a file name, or one that points outside the folder."""
    root = Path(folder_paths.get_folder_paths(TUNES)[0])
    path = Path(os.path.abspath(root / prefix))
    unprintable = printable_name(prefix) != prefix
    odd = unprintable or FORBIDDEN.search(prefix) or "\\" in prefix and os.sep == "/"
    if not prefix.strip() or prefix[-1] in "/\\" or odd:
        raise ValueError(f"{short(prefix)} is not a valid file name: use letters, digits and _, with / for subfolders.")
    if not path.is_relative_to(root) or path == root:
        raise ValueError(f"{short(prefix)} points outside models/{TUNES}: use a plain name, with / for subfolders.")
    parts = path.relative_to(root).parts
    if parts[0].lower() == SNAPSHOTS:
        raise ValueError(f"The subfolder {SNAPSHOTS} is for the snapshots of tunings: choose another name.")
    for part in parts:
        if RESERVED.fullmatch(part) or part[-1] in ". ":
            better = f"my_{short(part.strip('. '), quotes=False)}"
            raise ValueError(f"{short(part)} is not a valid file name on Windows: choose another, such as {better}.")
        if len(part.encode("utf-8", "surrogatepass")) > MOST_BYTES:
            raise ValueError(f"'{part[:20]}…' is {len(part)} characters long, too long for a file's name: shorten it.")
    if len(str(path)) > MOST_LETTERS:
        raise ValueError(f"The path {short(str(path))} is {len(str(path))} characters long, too long: shorten it.")
    check_writable(path.parent)


def check_writable(folder: Path) -> None:
    """Raises `ValueError` if no file can be created in a folder, which need not exist yet. Called before the work, not
    when there is something to save."""
    # lexists: `Path.exists` raises where a folder may not be entered, and does not see broken links
    existing = next((path for path in (folder, *folder.parents) if os.path.lexists(path)), None)
    if existing is None:  # on Windows
        raise ValueError(
            f"The drive of {folder} is not there: connect it, or choose another folder in your model paths."
        )
    if not existing.is_dir():
        raise ValueError(f"{existing} is a file, but a folder is needed: choose another name, or move it away.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(
            f"Nothing can be written to the folder {existing}: change its permissions, or choose another in your model "
            "paths."
        )


def new_tune_paths(prefix: str) -> Iterator[Path]:
    """Candidate paths, to be tried in order; the first one does not exist yet, and none has the name of a tune in
    another of the user's folders, which it would hide. Names are the prefix and a number, as in the host's own nodes,
    and %date% and similar are replaced as there. Raises like `check_prefix`, and `NotWritten` if the folder cannot be
    created."""
    check_prefix(prefix)
    root, *others = folder_paths.get_folder_paths(TUNES)
    try:
        folder, name, first, _, _ = folder_paths.get_save_image_path(prefix, root)
    except OSError as error:
        raise NotWritten(
            f"The folder for '{prefix}' cannot be made in models/{TUNES}: {why_not_written(error)}"
        ) from error
    paths = (Path(folder) / f"{name}_{number:05}_{EXTENSION}" for number in itertools.count(first))
    hides = lambda path: any((other / path.relative_to(root)).exists() for other in map(Path, others))
    return itertools.filterfalse(hides, paths)


def short_path(path: Path) -> str:
    """The path as the user knows it, starting at the folder's name."""
    root = next(
        (Path(folder) for folder in folder_paths.get_folder_paths(TUNES) if path.is_relative_to(folder)), path.parent
    )
    return f"{root.name}/{path.relative_to(root).as_posix()}"


def _names() -> list[str]:
    names = folder_paths.get_filename_list(TUNES)
    return [name for name in names if name.endswith(EXTENSION) and not is_markup(name)]


def inversions_folder() -> Path:
    """The folder of cached inversions; it may not exist yet. It has the name of a system user's folder, which newer
    hosts do not serve to browsers; older ones have no function for it."""
    return Path(folder_paths.get_user_directory()) / "__ei2" / "inversions"


def state_of_file(name: str | None, resolve: Callable[[str], Path]) -> str | float:
    """A value that changes when the file of that name, found by `resolve`, changes. `name` is None if it comes from
    another node and is not known yet; the state then differs each time, so the file is read."""
    if name is None:
        return float("nan")
    status = resolve(name).stat()
    return f"{status.st_mtime_ns}:{status.st_size}"


def find_litter() -> Litter:
    """The litter in all folders."""
    sizes = [size for folder in _folders() for size in temporary.find_litter(folder, _runs).values()]
    return Litter(len(sizes), sum(sizes))


def sweep() -> Litter:
    """Deletes the litter; returns what was deleted."""
    return sum((temporary.sweep(folder, _runs) for folder in _folders()), Litter())


def _folders() -> list[Path]:
    return [inversions_folder(), *map(Path, folder_paths.get_folder_paths(TUNES))]


def _runs(process: int, since: int) -> bool:
    try:
        return psutil.Process(process).create_time() <= since + 1  # later: another process has the id now
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:  # it exists, but we may not inspect it
        return True
