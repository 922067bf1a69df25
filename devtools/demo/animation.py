"""Clips side by side as one looping animation, for the demo and for the top of README.md."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from miniature.sheets import image

COLUMN = 208  # pixels, the width at which each clip is shown
GAP, LABEL = 8, 30  # pixels between clips, and above them for names
HOLD = 700  # milliseconds for the last frame before the loop restarts


def animate(clips: dict[str, torch.Tensor], file: Path, fps: float) -> None:
    """Writes an animated WebP with one column per clip (`f 3 h w` in 0..1, all of one size and length), its name above
    it."""
    height, width = next(iter(clips.values())).shape[-2:]
    row = round(COLUMN * height / width)
    empty = Image.new("RGB", (len(clips) * (COLUMN + GAP) - GAP, LABEL + row), "white")
    draw, font = ImageDraw.Draw(empty), ImageFont.load_default(size=17)
    for column, name in enumerate(clips):
        middle = column * (COLUMN + GAP) + COLUMN / 2
        draw.text((middle, LABEL / 2), name, fill="black", font=font, anchor="mm")
    pictures = []
    for frames in zip(*clips.values(), strict=True):
        picture = empty.copy()
        for column, frame in enumerate(frames):
            resized = image(frame).resize((COLUMN, row), Image.Resampling.LANCZOS)
            picture.paste(resized, (column * (COLUMN + GAP), LABEL))
        pictures.append(picture)
    durations = [round(1000 / fps)] * (len(pictures) - 1) + [HOLD]
    pictures[0].save(file, save_all=True, append_images=pictures[1:], duration=durations, loop=0, quality=88, method=6)
