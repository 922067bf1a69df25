"""What is measured of a long edited clip besides EditBench's scores: seams between windows and drift of the look.

Clips are `f 3 h w` in 0..1, against the rendered right result.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def borders(windows: Sequence[Sequence[int]], frames: int) -> torch.Tensor:
    """For each step from a frame to the next, `frames - 1` of them: whether a window begins or ends there."""
    covering = [{number for number, window in enumerate(windows) if frame in window} for frame in range(frames)]
    return torch.tensor([before != after for before, after in zip(covering, covering[1:])])


def seam_ratio(edited: torch.Tensor, truth: torch.Tensor, at_border: torch.Tensor) -> float:
    """Flicker (see `ei2.measures.flicker`) at the windows' borders, as a multiple of that inside of windows.
    `at_border`: see `borders`."""
    steps = (edited.double() - truth.double()).diff(dim=0).abs().mean(dim=(1, 2, 3))
    return float(steps[at_border].mean() / steps[~at_border].mean())


def color_errors(edited: torch.Tensor, truth: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Per frame how far the mean colour is from the right one, `f 3`, weighted by `f 1 h w` (of the object, say)."""
    errors = (edited.double() - truth.double()) * weights
    return errors.sum(dim=(2, 3)) / weights.double().sum(dim=(2, 3)).clamp(min=1e-6)


def drift(errors: torch.Tensor, first: Sequence[int], last: Sequence[int]) -> float:
    """How far a colour moves from the first window's frames to the last one's: the distance between the mean errors
    (see `color_errors`), 0..√3."""
    return float((errors[list(first)].mean(dim=0) - errors[list(last)].mean(dim=0)).norm())


def wander(errors: torch.Tensor) -> float:
    """How far a colour is from its own mean over the clip, root mean square over the frames."""
    return float((errors - errors.mean(dim=0)).square().sum(dim=1).mean().sqrt())
