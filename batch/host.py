"""Where ComfyUI is, which Python runs it, and which models it sees. Standard library only."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from .errors import BatchError

PACK_ROOT = Path(__file__).resolve().parent.parent
TUNES = "ei2_tunes"  # each server of a batch run has its own


def user_path(name: str) -> Path:
    """The absolute path of what a user wrote. Unlike `Path.expanduser`, a `~` that names nobody is no error."""
    return Path(os.path.expanduser(name)).resolve()


def locate(given: str | None = None) -> Path:
    """ComfyUI's folder: `given`, otherwise the environment variable COMFYUI_PATH, otherwise the one whose custom_nodes
    holds this pack. Raises `BatchError`."""
    # Not resolved: the pack may be linked into custom_nodes.
    around = [parent.parent for parent in Path(__file__).absolute().parents if parent.name == "custom_nodes"]
    found = [given, os.environ.get("COMFYUI_PATH", "").strip() or None, *map(str, around)]
    for name in filter(None, found):
        path = user_path(name)
        if (path / "main.py").exists() and (path / "comfy").is_dir():
            return path
        if name not in map(str, around):
            raise BatchError(f"{path} is not a ComfyUI folder: name the one that holds its main.py.")
    raise BatchError(
        "This pack is not in the custom_nodes folder of a ComfyUI: name the folder that holds "
        "ComfyUI's main.py with --comfyui or the environment variable COMFYUI_PATH."
    )


def python_in(environment: Path) -> Path:
    """The Python of a virtual environment."""
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def interpreter(path: Path) -> str:
    """The Python for the ComfyUI at `path`: `COMFYUI_PYTHON`, otherwise its own virtual environment's, otherwise the
    current one. Raises `BatchError` for a wrong `COMFYUI_PYTHON`."""
    given = os.environ.get("COMFYUI_PYTHON", "").strip()
    if given:
        program = shutil.which(os.path.expanduser(given))
        if program is None:
            raise BatchError(f"COMFYUI_PYTHON is {given}, which is not a program: name a Python interpreter.")
        return program
    for python in (python_in(path / name) for name in ("venv", ".venv")):
        if python.exists():
            return str(python)
    return sys.executable


def write_model_paths(base: Path, models: Path) -> Path:
    """Writes ComfyUI's file of extra model paths, so that a server with the private folder `base` sees the user's
    `models` but keeps tunes in its own folder; returns the file. `models`: absolute, because ComfyUI takes a relative
    path from the file's folder."""
    own = {"base_path": str(base / "models"), "is_default": True, TUNES: TUNES}
    users = {"base_path": str(models)}
    if models.is_dir():
        users |= {one.name: one.name for one in sorted(models.iterdir()) if one.is_dir()}
    file = base / "model_paths.yaml"
    content = json.dumps({"own": own, "users": users}, indent=2, ensure_ascii=False)  # YAML does not join surrogates
    file.write_text(content, encoding="utf-8")  # JSON is YAML
    return file
