"""Plots as IMAGEs, `1 h w 3` in 0..1, dark like the graph editor."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullFormatter

from ...ei2.covariate_shift import CovariateShift

BACKGROUND, INK, FAINT, ACCENT, RIVAL = "#202020", "#dddddd", "#555555", "#ffa64d", "#6fb7ff"
SMOOTHING, SMOOTHED = 0.05, 10  # what the running mean covers: a share of the run, and steps, at least
MOST_NAMES = 24  # of blocks along an axis


def plot_losses(losses: list[float], gains: list[float] | None = None) -> torch.Tensor:
    """The loss of every step, faint, and its running geometric mean. Logarithmic, because losses differ by orders of
    magnitude between noise levels. `gains`: each loss relative to that of the model before the tuning at the same noise
    level; shown instead of the losses, in percent."""
    values = np.asarray(gains or losses, dtype=np.float64) * (100 if gains else 1)
    steps = np.arange(1, len(values) + 1)
    window = min(len(values), max(SMOOTHED, round(SMOOTHING * len(values))))
    total = np.cumsum(np.insert(np.log(np.maximum(values, 1e-12)), 0, 0.0))
    first = np.maximum(steps - window, 0)
    mean = np.exp((total[steps] - total[first]) / (steps - first))

    figure = new_figure(4.6, 2.8)
    axes = figure.add_subplot(facecolor=BACKGROUND)
    axes.plot(steps, values, ".", markersize=3, color=FAINT, label="each step")
    axes.plot(steps, mean, color=ACCENT, linewidth=2, label=f"mean of {window} steps")
    axes.set_yscale("log")
    if gains:
        axes.axhline(100.0, color=RIVAL, linewidth=1, linestyle="--", label="before the tuning")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 4.0, 6.0, 8.0)))
        axes.yaxis.set_major_formatter(FormatStrFormatter("%g %%"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("step", color=INK)
    axes.set_ylabel("loss" if not gains else "loss, relative to the start", color=INK)
    title = f"final loss: {mean[-1]:.0f} % of that before tuning" if gains else f"final loss: {mean[-1]:.4f} (mean)"
    axes.set_title(title, color=INK, fontsize=10)
    darken(axes)
    axes.legend(facecolor=BACKGROUND, edgecolor=FAINT, labelcolor=INK, fontsize=9)
    return to_image(figure)


def plot_shift(shifts: dict[str, CovariateShift]) -> torch.Tensor:
    """The covariate shift of one or two models, keyed by label, over the blocks. Top: of the mean; bottom: of the log
    of the std. Solid: relative to the image model; dashed: of the temporal modules alone."""
    figure = new_figure(7.0, 6.4)
    above, below = figure.subplots(2, 1, sharex=True, subplot_kw={"facecolor": BACKGROUND})
    for axes, measure, name in ((above, "mean", "mean shift (in std)"), (below, "log_std", "log-std shift")):
        for (label, shift), color in zip(shifts.items(), (ACCENT, RIVAL)):
            for line, key, what in (("-", measure, label), ("--", f"module_{measure}", "its modules alone")):
                text = f"{what}: {shift.average(key):.3g}"
                axes.plot(getattr(shift, key), line, marker=".", color=color, linewidth=1.6, label=text)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(name, color=INK)
        darken(axes)
        axes.grid(color=FAINT, alpha=0.4, linewidth=0.6)
        axes.legend(  # above the axes, to hide no line
            loc="lower left",
            bbox_to_anchor=(0, 1),
            borderaxespad=0.2,
            ncols=2,
            handlelength=3,
            frameon=False,
            labelcolor=INK,
            fontsize=8,
        )
    first = next(iter(shifts.values()))
    shown = range(0, len(first.blocks), -(-len(first.blocks) // MOST_NAMES))
    names = [first.blocks[i] for i in shown]
    below.set_xticks(shown, names, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
    title = f"Covariate shift per block, mean of timesteps {_listed(first.timesteps)}; numbers: mean of blocks"
    figure.suptitle(title, color=INK, fontsize=10)
    return to_image(figure)


def _listed(numbers: list[int]) -> str:
    """`1, 2, 3`; many are shortened to `1, …, 9`."""
    few = numbers if len(numbers) <= 6 else [numbers[0], "…", numbers[-1]]
    return ", ".join(map(str, few))


def new_figure(width: float, height: float) -> Figure:
    """An empty dark figure; inches of 130 pixels."""
    return Figure(figsize=(width, height), dpi=130, facecolor=BACKGROUND, layout="constrained")


def darken(axes: Axes) -> None:
    axes.tick_params(colors=INK, which="both")
    for spine in axes.spines.values():
        spine.set_color(FAINT)


def to_image(figure: Figure) -> torch.Tensor:
    """The figure's pixels, `1 h w 3` in 0..1."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    return torch.from_numpy(pixels.astype(np.float32) / 255).unsqueeze(0)
