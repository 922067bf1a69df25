"""Text in pictures: strips and cells with a label that fits, `h w 3` in 0..1."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageColor, ImageDraw, ImageFont

from .plots import BACKGROUND, INK

# matplotlib's own font: it is there wherever the pack is, and knows more scripts than Pillow's
FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
MARGIN = 4  # pixels between a text and the edge
COLOR = torch.tensor(ImageColor.getrgb(BACKGROUND)) / 255


def font_of(size: int) -> ImageFont.FreeTypeFont:
    """The labels' font at `size` pixels."""
    return ImageFont.truetype(str(FONT), size)


def blank(height: int, width: int, frames: int = 1) -> torch.Tensor:
    """Empty dark pictures, `f h w 3`."""
    return COLOR.view(1, 1, 1, 3).repeat(frames, height, width, 1)


def text_width(text: str, size: int) -> int:
    """Pixels that a label takes with its margins."""
    return int(np.ceil(font_of(size).getlength(text))) + 2 * MARGIN


def strip(height: int, width: int, size: int, left: str = "", middle: str = "", right: str = "") -> torch.Tensor:
    """A dark strip `h w 3` with texts at its left, in its middle and at its right, `size` pixels high; with two of
    them each has half of it. What does not fit ends in an ellipsis."""
    picture = Image.new("RGB", (width, height), BACKGROUND)
    draw, font = ImageDraw.Draw(picture), font_of(size)
    room = (width - 2 * MARGIN) / max(1, sum(map(bool, (left, middle, right))))
    for text, x, anchor in ((left, MARGIN, "lm"), (middle, width / 2, "mm"), (right, width - MARGIN, "rm")):
        if text:
            draw.text((x, height / 2), shortened(text, font, room), fill=INK, font=font, anchor=anchor)
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)


def block(height: int, width: int, size: int, text: str) -> torch.Tensor:
    """A dark cell `h w 3` with a text at its left, in as many lines as it takes and the height has room for."""
    picture = Image.new("RGB", (width, height), BACKGROUND)
    draw, font, room = ImageDraw.Draw(picture), font_of(size), width - 2 * MARGIN
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if font.getlength(longer) <= room else [*lines, word]
    most = max(1, int(height / (1.3 * size)))
    if len(lines) > most:
        lines = [*lines[: most - 1], " ".join(lines[most - 1 :])]
    lines = [shortened(line, font, room) for line in lines if line]
    for i, line in enumerate(lines):
        y = height / 2 + (i - (len(lines) - 1) / 2) * 1.3 * size
        draw.text((MARGIN, y), line, fill=INK, font=font, anchor="lm")
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)


def shortened(text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    """The text, or its beginning and an ellipsis, within `room` pixels."""
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(text + "…") > room:
        text = text[:-1]
    return text.rstrip() + "…" if text else ""
