"""Text in pictures: strips and cells with a fitted label, `h w 3` in 0..1."""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache

import numpy as np
import torch
from PIL import Image, ImageColor, ImageDraw, ImageFont

from .fonts import font_for
from .plots import BACKGROUND, INK

MARGIN = 4  # pixels between a text and the edge
COLOR = torch.tensor(ImageColor.getrgb(BACKGROUND)) / 255


@lru_cache(maxsize=64)
def _opened(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


def font_of(text: str, size: int) -> ImageFont.FreeTypeFont:
    """A font at `size` pixels that has the text's characters, if the machine has one."""
    return _opened(str(font_for(text)), size)


def blank(height: int, width: int, frames: int = 1) -> torch.Tensor:
    """Empty dark pictures, `f h w 3`."""
    return COLOR.view(1, 1, 1, 3).repeat(frames, height, width, 1)


def text_width(text: str, size: int) -> int:
    """The width of a label with its margins in pixels."""
    return int(np.ceil(font_of(text, size).getlength(text))) + 2 * MARGIN


def strip(height: int, width: int, size: int, left: str = "", middle: str = "", right: str = "") -> torch.Tensor:
    """A dark strip `h w 3` with texts on the left, in the middle and on the right, `size` pixels high. Two texts get
    half of the strip each. Text that does not fit ends in an ellipsis."""
    picture = Image.new("RGB", (width, height), BACKGROUND)
    draw, room = ImageDraw.Draw(picture), (width - 2 * MARGIN) / max(1, sum(map(bool, (left, middle, right))))
    for text, x, anchor in ((left, MARGIN, "lm"), (middle, width / 2, "mm"), (right, width - MARGIN, "rm")):
        if text:
            font = font_of(text, size)
            draw.text((x, height / 2), shortened(text, font, room), fill=INK, font=font, anchor=anchor)
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)


def block(height: int, width: int, size: int, text: str) -> torch.Tensor:
    """A dark cell `h w 3` with a text on the left, wrapped to as many lines as fit."""
    picture = Image.new("RGB", (width, height), BACKGROUND)
    draw, font, room = ImageDraw.Draw(picture), font_of(text, size), width - 2 * MARGIN
    most, lines = max(1, int(height / (1.3 * size))), [""]
    words = [piece for word in text.split() for piece in _pieces(word, font, room)]
    for i, word in enumerate(words):
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= room:
            lines[-1] = longer
        elif len(lines) < most:
            lines.append(word)
        else:  # the last line gets the rest, shortened
            lines[-1] = " ".join([lines[-1], *words[i:]]).strip()
            break
    lines = [shortened(line, font, room) for line in lines if line]
    for i, line in enumerate(lines):
        y = height / 2 + (i - (len(lines) - 1) / 2) * 1.3 * size
        draw.text((MARGIN, y), line, fill=INK, font=font, anchor="lm")
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)


def _pieces(word: str, font: ImageFont.FreeTypeFont, room: float) -> list[str]:
    """A word, cut where it does not fit."""
    pieces = []
    while font.getlength(word) > room:
        letters = max(1, _fitting(word, font, room))
        pieces.append(word[:letters])
        word = word[letters:]
    return [*pieces, word]


def shortened(text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    """The text, or its beginning and an ellipsis, within `room` pixels."""
    if font.getlength(text) <= room:
        return text
    letters = _fitting(text, font, room, "…")
    return text[:letters].rstrip() + "…" if letters else ""


def _fitting(text: str, font: ImageFont.FreeTypeFont, room: float, ending: str = "") -> int:
    """How many of the text's first letters fit with the ending, not counting the last letter."""
    return bisect_right(range(1, len(text)), room, key=lambda count: font.getlength(text[:count] + ending))
