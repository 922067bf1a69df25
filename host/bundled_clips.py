"""The clips of the bundled workflows, in ComfyUI's input folder as its own example picture is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import folder_paths

from ..ei2.temporary import writing_folder

ASSETS = Path(__file__).resolve().parent.parent / "assets"


def provide_clips() -> None:
    """Copies the clips that the input folder lacks; a file of the same name stays. Raises `OSError`."""
    inputs = Path(folder_paths.get_input_directory())
    for clip in sorted(ASSETS.glob("*.mp4")):
        if not (inputs / clip.name).exists():
            inputs.mkdir(parents=True, exist_ok=True)
            with writing_folder(inputs) as folder:
                os.replace(shutil.copyfile(clip, folder / clip.name), inputs / clip.name)
