"""Plots of the scores of a reconstruction and of an edit, dark, and readable in a node 400 pixels wide."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from .plots import ACCENT, BACKGROUND, FAINT, INK, RIVAL, darken, new_figure, to_image

WIDTH = 4.6  # inches
TITLE_LETTERS = 58  # characters that fit a line of the title


@dataclass(frozen=True)
class Panel:
    """One small plot over the frames.

    `lines`: values by label, the first in the accent colour; `span`: the minimum range of the vertical axis, so that
    tiny differences do not look large; `from_zero`: whether that axis starts at zero; `most`: its maximum, for bounded
    values; `between`: whether a value belongs to a pair of consecutive frames, and is drawn half-way.
    """

    title: str
    lines: dict[str, Sequence[float]]
    span: float
    from_zero: bool = False
    most: float = math.inf
    between: bool = False


def plot_reconstruction(
    source: torch.Tensor, again: torch.Tensor, difference: torch.Tensor, worst: int, panels: list[Panel], advice: str
) -> torch.Tensor:
    """The worst frame of source, reconstruction and difference, `f h w 3` each, above curves over all frames."""
    height, width = source.shape[1:3]
    tall = min(2.0, max(0.6, (WIDTH - 0.3) / 3 * height / width))
    title = "\n".join(textwrap.wrap(advice, TITLE_LETTERS))
    figure = new_figure(WIDTH, tall + 0.35 + 1.25 * len(panels) + 0.19 * (title.count("\n") + 1))
    above, below = figure.subfigures(2, 1, height_ratios=[tall + 0.35, 1.25 * len(panels)], facecolor=BACKGROUND)
    figure.suptitle(title, color=INK, fontsize=9)
    pictures = {f"frame {worst}, the worst": source, "reconstruction": again, "difference": difference}
    for axes, (name, clip) in zip(above.subplots(1, 3), pictures.items()):
        axes.imshow(clip[worst].numpy(), interpolation="nearest" if width < 200 else "antialiased")
        axes.set_title(name, color=INK, fontsize=9)
        axes.set_axis_off()
    _draw(below.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0], panels, len(source))
    return to_image(figure)


def plot_metrics(panels: list[Panel], frames: int) -> torch.Tensor:
    """The panels, stacked: `1 h w 3`."""
    figure = new_figure(WIDTH, 0.45 + 1.45 * len(panels))
    _draw(figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0], panels, frames)
    return to_image(figure)


def _draw(column: Sequence[Axes], panels: list[Panel], frames: int) -> None:
    for axes, panel in zip(column, panels):
        axes.set_facecolor(BACKGROUND)
        for (label, values), color in zip(panel.lines.items(), (ACCENT, RIVAL)):
            x = [i + (0.5 if panel.between else 0) for i in range(len(values))]
            axes.plot(x, values, marker=".", markersize=4, color=color, linewidth=1.6, label=label)
        axes.set_title(panel.title, color=INK, fontsize=9, loc="left")
        axes.grid(color=FAINT, alpha=0.4, linewidth=0.6)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.margins(y=0.15)
        low, high = axes.get_ylim()
        if panel.from_zero:
            axes.set_ylim(0, max(panel.span, 1.15 * axes.dataLim.ymax))
        else:
            missing = max(0.0, panel.span - (high - low))
            above = min(high + missing / 2, panel.most)
            axes.set_ylim(min(low - missing / 2, above - panel.span), above)
        darken(axes)
        axes.tick_params(labelsize=9)
        if len(panel.lines) > 1:
            axes.legend(  # above the axes on the right, to hide no line
                loc="lower right",
                bbox_to_anchor=(1.02, 0.97),
                borderaxespad=0,
                ncols=2,
                handlelength=1.2,
                columnspacing=1,
                frameon=False,
                labelcolor=INK,
                fontsize=8.5,
            )
    column[-1].set_xlim(-0.3, max(frames - 0.7, 0.3))
    column[-1].xaxis.set_major_locator(MaxNLocator(8, integer=True))
    column[-1].set_xlabel("frame", color=INK, fontsize=9)
