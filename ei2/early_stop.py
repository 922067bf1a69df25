"""Ends a tuning when nothing more is learned: the loss at fixed noise levels no longer falls."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

CHECKS = 4  # at about every quarter of the most steps; a check takes as long as about two steps
LEAST = 0.05  # by how much the loss must fall from one check to the next, relative to itself


class EarlyStop:
    """Whether a tuning has learned enough, asked before every step (`enough` of `tuning.tune`).

    `most`: the steps at which it ends anyway; `measure()`: the losses at some noise levels, with the same noise every
    time, so that they compare; `untuned`: these losses before the first step, if they are known. The change from one
    check to the next is that of the losses' geometric mean, so every noise level counts alike.
    """

    def __init__(self, most: int, measure: Callable[[], Iterable[float]], untuned: Iterable[float] = ()):
        self.every, self.measure, self.before = max(1, most // CHECKS), measure, _level(untuned)

    def __call__(self, done: int) -> bool:
        """`done`: the number of steps so far."""
        if done == 0 or done % self.every:
            return False
        before, self.before = self.before, _level(self.measure())
        return bool(np.isfinite(self.before) and self.before > before + np.log1p(-LEAST))


def _level(losses: Iterable[float]) -> float:
    """Mean logarithm; infinite for no losses, so that the first check never ends a tuning."""
    losses = list(losses)
    return float(np.log(losses).mean()) if losses else np.inf
