"""The clips and pictures of the bundled workflows, in ComfyUI's input folder as its own example picture is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import folder_paths

from ..ei2.temporary import writing_folder

ASSETS = Path(__file__).resolve().parent.parent / "assets"


def provide_clips() -> None:
    """Copies the clips and pictures that the input folder lacks; a file of the same name stays. Raises `OSError`."""
    inputs = Path(folder_paths.get_input_directory())
    for file in sorted([*ASSETS.glob("*.mp4"), *ASSETS.glob("*_key_frame.png")]):
        if not (inputs / file.name).exists():
            inputs.mkdir(parents=True, exist_ok=True)
            with writing_folder(inputs) as folder:
                os.replace(shutil.copyfile(file, folder / file.name), inputs / file.name)
