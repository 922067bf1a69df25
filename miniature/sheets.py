"""Pictures with text, for viewing: clips row by row, and a grid of pictures with captions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

LABEL_WIDTH = 150  # pixels, left of a contact sheet's rows
GAP = 4  # pixels between the pictures of a contact sheet
GRID_GAP, LINE = 6, 10  # pixels between the pictures of a grid, and from one line of a caption to the next
Line = Sequence[tuple[str, str]]  # pieces of text, each with its colour


def image(picture: torch.Tensor) -> Image.Image:
    """A picture `3 h w` in 0..1."""
    return Image.fromarray((picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy())


def contact_sheet(rows: dict[str, torch.Tensor], file: Path) -> None:
    """Writes a picture with one row per clip (`f 3 h w`, 0..1), one column per frame, the rows' names on the left."""
    frames = max(len(clip) for clip in rows.values())
    height, width = next(iter(rows.values())).shape[-2:]
    size = (LABEL_WIDTH + frames * (width + GAP), len(rows) * (height + GAP) + GAP)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=18)
    for row, (name, clip) in enumerate(rows.items()):
        top = GAP + row * (height + GAP)
        draw.text((10, top + height / 2), name, fill="black", font=font, anchor="lm")
        for column, picture in enumerate(clip):
            sheet.paste(image(picture), (LABEL_WIDTH + column * (width + GAP), top))
    sheet.save(file)


def captioned_grid(pictures: torch.Tensor, captions: Sequence[Sequence[Line]], file: Path, columns: int = 8) -> None:
    """Writes pictures `b 3 h w` in 0..1 in rows of `columns`, the lines of each one's caption below it. Makes the
    folder if needed."""
    height, width = pictures.shape[-2:]
    cell_width, cell_height = width + GRID_GAP, height + max(map(len, captions)) * LINE + GRID_GAP
    rows = -(-len(pictures) // columns)
    grid = Image.new("RGB", (columns * cell_width + GRID_GAP, rows * cell_height + GRID_GAP), "white")
    draw, font = ImageDraw.Draw(grid), ImageFont.load_default(size=9)
    for i, (picture, lines) in enumerate(zip(pictures, captions)):
        x, y = GRID_GAP + i % columns * cell_width, GRID_GAP + i // columns * cell_height
        grid.paste(image(picture), (x, y))
        for number, line in enumerate(lines):
            left = x
            for text, color in line:
                draw.text((left, y + height + number * LINE), text, fill=color, font=font)
                left += font.getlength(text + " ")
    file.parent.mkdir(parents=True, exist_ok=True)
    grid.save(file, optimize=True)
