"""ComfyUI's input folder: what videos it holds, and which file a name means."""
from __future__ import annotations

import os
from pathlib import Path

import folder_paths

from .plain_text import is_markup


def list_input_videos() -> list[str]:
    """Names of the videos (and GIFs) that lie directly in the input folder, sorted."""
    folder = Path(folder_paths.get_input_directory())
    names = [entry.name for entry in folder.iterdir() if entry.is_file()] if folder.is_dir() else []
    videos = folder_paths.filter_files_content_types(names, ["video"])
    videos = {*videos, *(name for name in names if name.lower().endswith(".gif"))}
    return sorted(name for name in videos if not is_markup(name))


def resolve_input(name: str) -> Path:
    """The file that a name means: "clip.mp4", "subfolder/clip.mp4", or "clip.mp4 [output]" for ComfyUI's other folders.

    Raises ValueError for an empty name, a path that leads out of the folder, and a missing file.
    """
    if not name:
        raise ValueError("No video is chosen: upload one, or put a file into ComfyUI's input folder and choose it.")
    relative, folder = folder_paths.annotated_filepath(name)
    folder = Path(os.path.abspath(folder or folder_paths.get_input_directory()))
    # abspath, not resolve: a folder that the user links into the input folder may lie elsewhere.
    path = Path(os.path.abspath(folder / relative))
    if not path.is_relative_to(folder):
        raise ValueError(f"'{name}' lies outside ComfyUI's {folder.name} folder: copy the video into it and choose it.")
    if not path.is_file():
        raise ValueError(f"There is no file '{relative}' in ComfyUI's {folder.name} folder: "
                         "upload the video again or choose another.")
    return path
