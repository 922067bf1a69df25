"""Confidence intervals for comparing two methods on the same clips and edits: the paired bootstrap.

Whole clips are resampled, with all their edits and seeds, because results on one clip are not independent. Intervals
are 95 % percentile intervals (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import bootstrap


class Interval(NamedTuple):
    """An estimate and the ends of its 95 % confidence interval."""

    estimate: float
    low: float
    high: float


def paired_bootstrap(
    values: Sequence[float],
    reference: Sequence[float],
    clips: Sequence[Hashable],
    resamples: int = 10000,
    seed: int = 0,
    ratio: bool = False,
) -> Interval:
    """The mean of `values` minus the mean of `reference`, with its interval; deterministic.

    `values[i]` and `reference[i]` are two methods' results on the same clip, edit and seed; `clips[i]` names the clip.
    `ratio`: divides the means instead, for measures with a natural zero, such as flicker. Raises ValueError for inputs
    of unequal lengths, values that are not finite, fewer than two clips, and a ratio to a clip's reference that is not
    positive, because resamples could then divide by zero.
    """
    if not len(values) == len(reference) == len(clips):
        raise ValueError(
            f"Paired results need one value, one reference and one cluster each, but there are {len(values)} values, "
            f"{len(reference)} references and {len(clips)} clusters."
        )
    results = np.array([values, reference, np.ones(len(values))], dtype=float)
    if not np.isfinite(results).all():
        raise ValueError("Some of the results are not finite: leave those pairs out of both methods.")
    numbers = {name: i for i, name in enumerate(dict.fromkeys(clips))}
    if len(numbers) < 2:
        raise ValueError(f"Resampling needs at least two clips, but there are {len(numbers)}.")
    sums = [np.bincount([numbers[name] for name in clips], weights=row) for row in results]  # per clip
    if ratio and (sums[1] <= 0).any():
        raise ValueError("A ratio needs a reference that is positive on every clip: use the difference instead.")

    def statistic(*sums: np.ndarray, axis: int) -> np.ndarray:
        value, other, count = (part.sum(axis=axis) for part in sums)
        return value / other if ratio else (value - other) / count

    options = {"n_resamples": resamples, "method": "percentile", "rng": np.random.default_rng(seed)}
    interval = bootstrap(sums, statistic, paired=True, **options).confidence_interval
    return Interval(*map(float, (statistic(*sums, axis=0), *interval)))
