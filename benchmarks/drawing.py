"""How the benchmarks' plots look."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

INK, FAINT = "#24292f", "#d0d7de"
DPI = 160
TEXT = 9  # points
PALETTE = 128  # colours of a saved picture


def new_figure(panels: int, size: tuple[float, float], rows: int = 1) -> tuple[Figure, list]:
    """A light figure with so many panels side by side, in one or more rows; the panels row by row."""
    figure = Figure(figsize=size, dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    all_axes = list(figure.subplots(rows, panels, squeeze=False).flat)
    for axes in all_axes:
        axes.grid(color=FAINT, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(colors=INK, labelsize=TEXT)
        axes.xaxis.label.set(color=INK, fontsize=TEXT)
        axes.yaxis.label.set(color=INK, fontsize=TEXT)
        for side, spine in axes.spines.items():
            spine.set(color=FAINT, visible=side in ("left", "bottom"))
    return figure, all_axes


def save(figure: Figure, file: Path) -> bool:
    """Writes the PNG; returns True."""
    figure.canvas.draw()
    picture = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    picture.quantize(PALETTE, dither=Image.Dither.NONE).save(file, optimize=True)  # half the bytes, looks the same
    return True
