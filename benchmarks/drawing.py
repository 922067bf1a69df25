"""The style of the benchmarks' plots and contact sheets."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from miniature.sheets import contact_sheet

INK, FAINT = "#24292f", "#d0d7de"
DPI = 160
TEXT = 9  # points
TITLE_LETTERS = 12.5  # of a plot's title that fit into an inch
TITLE_HEIGHT = 62  # pixels, of a contact sheet's two lines
PALETTE = {"plot": 128, "sheet": 256}  # colours of a saved picture: far fewer bytes, no visible difference


def new_figure(columns: int, size: tuple[float, float], title: str, rows: int = 1) -> tuple[Figure, list]:
    """A light figure of `size` inches and its panels, row by row."""
    figure = Figure(figsize=size, dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(textwrap.fill(title, round(TITLE_LETTERS * size[0])), fontsize=TEXT + 1, color=INK)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.grid(color=FAINT, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(colors=INK, labelsize=TEXT)
        for text in (axes.xaxis.label, axes.yaxis.label):
            text.set(color=INK, fontsize=TEXT)
        for side, spine in axes.spines.items():
            spine.set(color=FAINT, visible=side in ("left", "bottom"))
    return figure, panels


def save_figure(figure: Figure, file: Path) -> bool:
    """Writes the PNG. Returns True: there was something to draw."""
    for axes in figure.axes:
        axes.title.set(color=INK, fontsize=TEXT)
    figure.canvas.draw()
    picture = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    picture.quantize(PALETTE["plot"], dither=Image.Dither.NONE).save(file, optimize=True)
    return True


def spread(pictures: torch.Tensor, columns: int) -> torch.Tensor:
    """At most `columns` evenly spaced pictures, including the first and the last."""
    if len(pictures) <= columns:
        return pictures
    return pictures[torch.linspace(0, len(pictures) - 1, columns).round().long()]


def titled_sheet(clips: dict[str, torch.Tensor], columns: int, file: Path, title: str, subtitle: str) -> None:
    """Writes a contact sheet with a title of two lines: a row of at most `columns` frames per clip (`f 3 h w`,
    0..1)."""
    contact_sheet({name: spread(clip, columns) for name, clip in clips.items()}, file)
    sheet = Image.open(file).convert("RGB")
    lines = ((title, 20, "black", 20), (subtitle, 17, "#444444", 46))  # text, size, colour, height of its middle
    fonts = [ImageFont.load_default(size=size) for _, size, *_ in lines]
    width = round(max(font.getlength(text) for font, (text, *_) in zip(fonts, lines))) + 20
    page = Image.new("RGB", (max(sheet.width, width), sheet.height + TITLE_HEIGHT), "white")
    page.paste(sheet, (0, TITLE_HEIGHT))
    for font, (text, _, color, y) in zip(fonts, lines):
        ImageDraw.Draw(page).text((10, y), text, fill=color, font=font, anchor="lm")
    page.quantize(PALETTE["sheet"], dither=Image.Dither.NONE).save(file, optimize=True)
