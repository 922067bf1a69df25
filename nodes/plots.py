"""Plots as IMAGEs, `1 h w 3` in 0..1, dark as the graph editor."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

BACKGROUND, INK, FAINT, ACCENT = "#202020", "#dddddd", "#555555", "#ffa64d"
SMOOTHING = 0.05  # share of the run that the running mean looks back over


def plot_losses(losses: list[float]) -> torch.Tensor:
    """The loss of every step, faint, and its running mean; logarithmic, since noise levels differ by orders."""
    steps = np.arange(1, len(losses) + 1)
    window = max(1, round(SMOOTHING * len(losses)))
    total = np.cumsum(np.insert(np.asarray(losses, dtype=np.float64), 0, 0.0))
    first = np.maximum(steps - window, 0)
    mean = (total[steps] - total[first]) / (steps - first)

    figure = Figure(figsize=(4.6, 2.8), dpi=130, facecolor=BACKGROUND, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot(facecolor=BACKGROUND)
    axes.plot(steps, losses, ".", markersize=3, color=FAINT, label="each step")
    axes.plot(steps, mean, color=ACCENT, linewidth=2, label=f"mean of {window} steps")
    axes.set_yscale("log")
    axes.set_xlabel("step", color=INK)
    axes.set_ylabel("loss", color=INK)
    axes.set_title(f"mean loss {mean[-1]:.4f} at the end", color=INK, fontsize=10)
    axes.tick_params(colors=INK, which="both")
    for spine in axes.spines.values():
        spine.set_color(FAINT)
    axes.legend(facecolor=BACKGROUND, edgecolor=FAINT, labelcolor=INK, fontsize=9)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    return torch.from_numpy(pixels.astype(np.float32) / 255).unsqueeze(0)
