"""Covariate shift against NumPy, in float64, written from the formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ei2.covariate_shift import MEASURES, CovariateShift, FeatureStatistics, feature_shift


def gathered(*pieces: np.ndarray | torch.Tensor) -> FeatureStatistics:
    statistics = FeatureStatistics()
    for piece in pieces:
        statistics.add(torch.as_tensor(piece))
    return statistics


def features(seed: int, channels: int = 7) -> np.ndarray:
    """`f d c`, every channel with another mean and spread."""
    rng = np.random.default_rng(seed)
    return rng.normal(rng.normal(size=channels), rng.uniform(0.2, 3, channels), (4, 15, channels))


def oracle(changed: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    a, b = changed.reshape(-1, changed.shape[-1]), reference.reshape(-1, reference.shape[-1])
    mean_shift = [abs(a[:, c].mean() - b[:, c].mean()) / b[:, c].std() for c in range(a.shape[1])]
    log_std_shift = [abs(np.log(a[:, c].std() / b[:, c].std())) for c in range(a.shape[1])]
    return sum(mean_shift) / len(mean_shift), sum(log_std_shift) / len(log_std_shift)


def test_shift_against_numpy():
    changed, reference = features(1), features(2)
    found = feature_shift(gathered(changed), gathered(reference))
    assert found == pytest.approx(oracle(changed, reference), rel=1e-12)


def test_shift_of_a_known_change():
    """Half a standard deviation up and twice as wide, in every channel."""
    reference = features(3)
    center, std = reference.mean((0, 1)), reference.std((0, 1))
    changed = center + 0.5 * std + 2 * (reference - center)
    assert feature_shift(gathered(changed), gathered(reference)) == pytest.approx((0.5, np.log(2)), rel=1e-12)


def test_the_ends_of_a_shift_are_not_alike():
    """The mean shift is counted in the reference's std; the log-std shift is the same both ways."""
    wide, narrow = gathered(3 * features(4) + 1), gathered(features(4))
    there, back = feature_shift(wide, narrow), feature_shift(narrow, wide)
    assert there[0] == pytest.approx(3 * back[0], rel=1e-9)
    assert there[1] == pytest.approx(back[1], rel=1e-9) == pytest.approx(np.log(3))


def test_equal_features_have_no_shift():
    assert feature_shift(gathered(features(5)), gathered(features(5))) == (0.0, 0.0)


@pytest.mark.parametrize("cuts", [[1], [2, 3], [1, 2, 3]])
def test_pieces_are_gathered_exactly(cuts):
    whole = features(6)
    found = gathered(*np.split(whole, cuts))
    assert found.count == 60
    np.testing.assert_allclose(found.mean, whole.mean((0, 1)), rtol=1e-12)
    np.testing.assert_allclose(found.std, whole.std((0, 1)), rtol=1e-12)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.float16, 1e-6), (torch.bfloat16, 1e-6)])
def test_lower_precision_is_reduced_in_float32(dtype, tolerance):
    whole = torch.from_numpy(features(7)).to(dtype)
    found = gathered(*whole.split(1))
    np.testing.assert_allclose(found.mean, whole.double().mean((0, 1)), atol=tolerance)
    np.testing.assert_allclose(found.std, whole.double().flatten(0, 1).std(0, correction=0), rtol=tolerance)


def test_a_mean_far_from_zero_does_not_drown_the_spread():
    """A sum of squares in float32 would give a std of 0 or NaN here."""
    whole = torch.from_numpy(1e4 + np.random.default_rng(8).normal(size=(6, 500, 3))).float()
    found = gathered(*whole.split(2))
    np.testing.assert_allclose(found.std, whole.double().flatten(0, 1).std(0, correction=0), rtol=1e-3)


def test_features_are_not_kept():
    """Only c numbers each, whatever has been added, and no graph."""
    piece = torch.ones(2, 5, 3, requires_grad=True)
    found = gathered(piece * 2)
    assert found.mean.shape == found.variance.shape == (3,)
    assert not found.mean.requires_grad and not found.variance.requires_grad


@pytest.mark.parametrize("noise", [0.0, 1e-9])
def test_a_dead_channel_counts_as_a_thousandth_of_the_typical_spread(noise):
    reference = np.random.default_rng(9).normal(size=(4, 500, 4))
    reference[..., 0] = 2 + noise * reference[..., 0]
    typical = np.sqrt(reference.var((0, 1)).mean())
    assert feature_shift(gathered(reference), gathered(reference)) == (0.0, 0.0)
    changed = reference.copy()
    changed[..., 0] += 1e-4 * typical
    assert feature_shift(gathered(changed), gathered(reference)) == pytest.approx((0.1 / 4, 0.0), rel=1e-6, abs=1e-6)
    alive = reference.copy()
    alive[..., 0] = 2 + typical * reference[::-1, ..., 1] / reference[..., 1].std()
    assert feature_shift(gathered(alive), gathered(reference))[1] == pytest.approx(np.log(1000) / 4, rel=1e-6)


def test_features_that_do_not_vary_are_refused():
    with pytest.raises(ValueError, match="features do not vary.*use more frames"):
        feature_shift(gathered(features(1)), gathered(np.ones((4, 15, 7))))


def test_not_a_number_is_not_hidden():
    broken = features(1)
    broken[0, 0, 3] = np.nan
    assert np.isnan(feature_shift(gathered(broken), gathered(features(2)))).all()
    assert np.isnan(feature_shift(gathered(features(2)), gathered(broken))).all()


def test_the_table():
    shift = CovariateShift(["input 1", "middle"], [0.5, 1.5], [0.1, 0.2], [0.0, 0.25], [12.0, 0.0], [100, 900])
    assert [shift.average(measure) for measure in MEASURES] == pytest.approx([1.0, 0.15, 0.125, 6.0])
    lines = shift.table().splitlines()
    assert len({len(line) for line in lines}) == 1  # aligned
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["block", "mean shift", "log-std shift", "module: mean shift", "module: log-std shift"]
    assert all(set(cell) <= set("-:") for cell in cells[1])
    assert cells[2:] == [
        ["input 1", "0.5000", "0.1000", "0.0000", "12.0000"],
        ["middle", "1.5000", "0.2000", "0.2500", "0.0000"],
        ["mean of blocks", "1.0000", "0.1500", "0.1250", "6.0000"],
    ]
