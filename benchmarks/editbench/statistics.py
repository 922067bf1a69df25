"""Confidence intervals for the comparison of two methods on the same clips and edits: the paired bootstrap.

What is resampled are whole clips, with all their edits and seeds, because results on one clip are not independent.
Intervals are 95 % percentile intervals (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

LEVEL = 0.95


class Interval(NamedTuple):
    """An estimate and the ends of its 95 % confidence interval."""

    estimate: float
    low: float
    high: float


def paired_bootstrap(values: Sequence[float], reference: Sequence[float], clusters: Sequence[Hashable],
                     resamples: int = 10000, seed: int = 0) -> Interval:
    """The mean of `values` less the mean of `reference`, with its interval.

    `values[i]` and `reference[i]` are two methods' results on the same clip, edit and seed; `clusters[i]` names the
    clip. The same at every call. Raises ValueError for input of unequal lengths, for values that are not finite and
    for fewer than two clips.
    """
    sums = _sums(values, reference, clusters)
    drawn = _resampled(sums, resamples, seed)
    difference = lambda s: (s[..., 0] - s[..., 1]) / s[..., 2]
    return _interval(difference(sums.sum(axis=0)), difference(drawn))


def paired_bootstrap_ratio(values: Sequence[float], reference: Sequence[float], clusters: Sequence[Hashable],
                           resamples: int = 10000, seed: int = 0) -> Interval:
    """The mean of `values` divided by the mean of `reference`, with its interval: for measures with a natural zero,
    such as flicker and centroid errors. Otherwise as `paired_bootstrap`; raises ValueError too if a clip's mean
    reference is not positive, because resamples could then divide by zero."""
    sums = _sums(values, reference, clusters)
    if (sums[:, 1] <= 0).any():
        raise ValueError("A ratio needs a reference that is positive on every clip: use the difference instead.")
    drawn = _resampled(sums, resamples, seed)
    ratio = lambda s: s[..., 0] / s[..., 1]
    return _interval(ratio(sums.sum(axis=0)), ratio(drawn))


def _sums(values: Sequence[float], reference: Sequence[float], clusters: Sequence[Hashable]) -> np.ndarray:
    """Per cluster, in the order of their first occurrence: the sums of the values and of the reference, and their
    number, `k 3`."""
    if not len(values) == len(reference) == len(clusters):
        raise ValueError(f"Paired results need one value, one reference and one cluster each, but there are "
                         f"{len(values)} values, {len(reference)} references and {len(clusters)} clusters.")
    table = np.stack([np.asarray(values, float), np.asarray(reference, float), np.ones(len(values))], axis=1)
    if not np.isfinite(table).all():
        raise ValueError("Some of the results are not finite: leave those pairs out of both methods.")
    numbers = {name: i for i, name in enumerate(dict.fromkeys(clusters))}
    if len(numbers) < 2:
        raise ValueError(f"Resampling needs at least two clips, but there are {len(numbers)}.")
    sums = np.zeros((len(numbers), 3))
    np.add.at(sums, [numbers[name] for name in clusters], table)
    return sums


def _resampled(sums: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """The sums over clusters drawn with replacement, `resamples 3`."""
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=resamples)
    return counts @ sums


def _interval(estimate: float, drawn: np.ndarray) -> Interval:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(estimate), float(low), float(high))
