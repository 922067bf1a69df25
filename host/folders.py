"""ComfyUI's input folder: what videos it holds, and which file a name means."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths

from .plain_text import is_markup

# What FFmpeg and Pillow read. The host goes by the machine's own list of file types, which lacks some on most machines.
VIDEO_SUFFIXES = set(
    ".3g2 .3gp .amv .apng .asf .avi .divx .dv .f4v .flv .gif .h264 .h265 .264 .265 .hevc .ivf .m1v .m2t .m2ts .m2v "
    ".m4v .mjpeg .mjpg .mkv .mod .mov .mp4 .mpe .mpeg .mpg .mts .mxf .nut .obu .ogm .ogv .qt .rm .rmvb .tod .ts .vob "
    ".webm .webp .wmv .y4m".split()
)


def list_input_videos() -> list[str]:
    """Names of the videos and animated pictures that lie directly in the input folder, sorted."""
    folder = Path(folder_paths.get_input_directory())
    names = [entry.name for entry in folder.iterdir() if entry.is_file()] if folder.is_dir() else []
    videos = folder_paths.filter_files_content_types(names, ["video"])
    videos = {*videos, *(name for name in names if Path(name).suffix.lower() in VIDEO_SUFFIXES)}
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
        raise ValueError(
            f"There is no file '{relative}' in ComfyUI's {folder.name} folder: "
            "upload the video again or choose another."
        )
    return path
