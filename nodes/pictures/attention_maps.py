"""Cross-attention maps as one IMAGE, with a row per word and a column per frame."""

from __future__ import annotations

import textwrap

import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text

from .fonts import FONT, font_for
from .plots import BACKGROUND, INK, new_figure, to_image

MOST_WORDS, MOST_FRAMES = 16, 8  # maps drawn; more would not be readable
MOST_NAMES = 60  # words listed that are not drawn
LONGEST_WORD = 18  # characters
CELL = 0.85  # inches, the longer side of one map
HEAT = LinearSegmentedColormap.from_list("heat", ["#101018", "#3b2352", "#9c2f5e", "#ee6a3c", "#ffc46b", "#fff6dd"])


def draw_maps(maps: torch.Tensor, words: list[str]) -> torch.Tensor:
    """Draws the maps `w f h w'`, a row per word, bright where the frame attends to it: `1 H W 3` in 0..1.

    Every row is scaled by its maximum over all frames, so rows show where, not how much. If there are many frames,
    evenly spaced ones are drawn; if there are many words, the first ones are drawn and the others listed below. Raises
    `ValueError` if the number of words differs from that of maps, if there are none, and if maps are not finite.
    """
    if maps.ndim != 4 or len(maps) != len(words) or not maps.numel():
        raise ValueError(f"Maps of shape {list(maps.shape)} do not belong to {len(words)} words.")
    maps = maps.detach().cpu().float()
    if not maps.isfinite().all():
        raise ValueError("The attention maps hold NaN or infinite values: try fp32.")
    frames = chosen_frames(maps.shape[1])
    highest = maps.amax(dim=(1, 2, 3), keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)
    shown, left_out = (maps / highest)[:MOST_WORDS, frames].numpy(), words[MOST_WORDS:]

    rows, columns, height, width = shown.shape
    gap = max(1, round(max(height, width) / 16))
    sheet = _sheet(shown, gap)
    labels = [_short(word) for word in words[:MOST_WORDS]]
    across = CELL * width / max(height, width) * columns
    down = CELL * height / max(height, width) * rows
    margin = 0.35 + 0.085 * max(map(len, labels))  # inches, for the words
    names = [*map(_short, left_out[:MOST_NAMES]), *(["…"] if len(left_out) > MOST_NAMES else [])]
    below = textwrap.wrap(f"not drawn: {', '.join(names)}", int((across + margin) / 0.075))
    figure = new_figure(across + margin + 0.3, down + 0.65 + (0.18 * len(below) if left_out else 0))
    figure.get_layout_engine().set(w_pad=0.09, h_pad=0.09)
    axes = figure.add_subplot(facecolor=BACKGROUND)
    axes.imshow(sheet, cmap=HEAT, vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks([(i + 0.5) * width + i * gap - 0.5 for i in range(columns)], frames)
    axes.set_yticks([(i + 0.5) * height + i * gap - 0.5 for i in range(rows)], labels, parse_math=False)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("frame", color=INK, fontsize=9)
    axes.tick_params(colors=INK, length=0, labelsize=10)
    axes.tick_params(axis="x", labelsize=9)
    axes.spines[:].set_visible(False)
    texts = axes.get_yticklabels()
    if left_out:
        texts.append(figure.supxlabel("\n".join(below), color=INK, fontsize=8, parse_math=False))
    for text in texts:
        _with_all_letters(text)
    return to_image(figure)


def chosen_frames(frames: int) -> list[int]:
    """At most `MOST_FRAMES` frame numbers, counted from 0 and evenly spaced, including the first and the last."""
    return np.linspace(0, frames - 1, min(frames, MOST_FRAMES)).round().astype(int).tolist()


def _with_all_letters(text: Text) -> None:
    """Sets a font that has the text's characters if matplotlib's own lacks some."""
    path = font_for(text.get_text())
    if path != FONT:
        size = text.get_fontsize()
        text.set_fontproperties(FontProperties(fname=str(path), size=size))


def _sheet(maps: np.ndarray, gap: int) -> np.ndarray:
    """Arranges maps `r c h w` in a grid, separated by `gap` cells of NaN, which is not drawn."""
    rows, columns, height, width = maps.shape
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap), np.nan, dtype=np.float32)
    for r in range(rows):
        for c in range(columns):
            top, left = r * (height + gap), c * (width + gap)
            sheet[top : top + height, left : left + width] = maps[r, c]
    return sheet


def _short(word: str) -> str:
    """A word for a label."""
    return word if len(word) <= LONGEST_WORD else word[: LONGEST_WORD - 1] + "…"
