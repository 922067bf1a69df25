"""The paired bootstrap against cases whose answer is known."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from benchmarks.editbench.statistics import paired_bootstrap

paired_bootstrap_ratio = partial(paired_bootstrap, ratio=True)


def test_a_constant_difference_has_an_interval_without_width():
    reference = [1.0, 5.0, 2.0, 8.0, 3.0, 3.5]
    result = paired_bootstrap([r + 2 for r in reference], reference, ["a", "a", "b", "b", "c", "c"])
    assert result == pytest.approx((2, 2, 2))


def test_a_constant_ratio_has_an_interval_without_width():
    reference = [1.0, 5.0, 2.0, 8.0]
    assert paired_bootstrap_ratio([0.5 * r for r in reference], reference, "aabb") == pytest.approx((0.5, 0.5, 0.5))


def test_two_clips_by_hand():
    """Of two clips the resamples are aa, bb and, half the time, ab: with differences 1 and 3, the 2.5 % and 97.5 %
    quantiles are 1 and 3."""
    assert paired_bootstrap([1.0, 3.0], [0.0, 0.0], ["a", "b"]) == (2, 1, 3)
    assert paired_bootstrap_ratio([2.0, 3.0], [1.0, 3.0], ["a", "b"]) == (1.25, 1, 2)


def test_clips_count_by_the_number_of_their_results():
    result = paired_bootstrap([1.0, 1.0, 1.0, 5.0], [0.0] * 4, ["a", "a", "a", "b"])
    assert result == (2, 1, 5)


def test_the_interval_is_the_normal_one_for_many_clips():
    rng = np.random.default_rng(1)
    reference = rng.normal(size=500)
    difference = rng.normal(0.3, 1.0, size=500)
    result = paired_bootstrap(reference + difference, reference, range(500), resamples=8000)
    half = 1.96 * difference.std() / np.sqrt(500)
    assert result.estimate == pytest.approx(difference.mean())
    assert result.low == pytest.approx(difference.mean() - half, abs=0.1 * half)
    assert result.high == pytest.approx(difference.mean() + half, abs=0.1 * half)


def test_results_of_one_clip_are_resampled_together():
    """Four equal copies of each result add no information, so the interval must not shrink."""
    rng = np.random.default_rng(2)
    values = rng.normal(size=24)
    single = paired_bootstrap(values, np.zeros(24), range(24))
    copies = paired_bootstrap(np.repeat(values, 4), np.zeros(96), np.repeat(np.arange(24), 4).tolist())
    assert copies == pytest.approx(single)
    naive = paired_bootstrap(np.repeat(values, 4), np.zeros(96), range(96))
    assert naive.high - naive.low < 0.6 * (single.high - single.low)


@pytest.mark.parametrize("ratio", [False, True])
def test_the_interval_holds_the_truth_about_95_times_in_100(ratio: bool):
    """24 clips with two correlated results each, as in a split."""
    rng = np.random.default_rng(3)
    clusters = np.repeat(np.arange(24), 2).tolist()
    hits, trials = 0, 300
    for seed in range(trials):
        reference = rng.uniform(1, 3, size=48)
        clip = np.repeat(rng.normal(size=24), 2)
        values = 1.5 * reference + 0.4 * clip + 0.3 * rng.normal(size=48)
        method, truth = (paired_bootstrap_ratio, 1.5) if ratio else (paired_bootstrap, 1.0)
        result = method(values, reference, clusters, resamples=1000, seed=seed)
        hits += result.low <= truth <= result.high
    assert 0.90 <= hits / trials <= 0.98


def test_the_same_at_every_call_and_another_for_another_seed():
    rng = np.random.default_rng(4)
    values, reference = rng.normal(size=(2, 24))
    assert paired_bootstrap(values, reference, range(24)) == paired_bootstrap(values, reference, range(24))
    assert paired_bootstrap(values, reference, range(24)) != paired_bootstrap(values, reference, range(24), seed=1)


@pytest.mark.parametrize("method", [paired_bootstrap, paired_bootstrap_ratio])
def test_results_that_are_no_pairs_are_refused(method):
    with pytest.raises(ValueError, match="2 values, 3 references and 2 clusters"):
        method([1.0, 2.0], [1.0, 2.0, 3.0], ["a", "b"])
    with pytest.raises(ValueError, match="not finite"):
        method([1.0, float("nan")], [1.0, 2.0], ["a", "b"])
    with pytest.raises(ValueError, match="at least two clips, but there are 1"):
        method([1.0, 2.0], [1.0, 2.0], ["a", "a"])


def test_a_ratio_to_zero_is_refused():
    with pytest.raises(ValueError, match="positive on every clip"):
        paired_bootstrap_ratio([1.0, 2.0], [0.0, 2.0], ["a", "b"])
