"""SSIM against a NumPy version in float64, written window by window from the paper's formula (13)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ei2.ssim import masked_ssim, ssim, ssim_map


def numpy_ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`h w` pictures in 0..1 -> the SSIM of each 11 x 11 window."""
    y, x = np.mgrid[-5:6, -5:6]
    w = np.exp(-(x**2 + y**2) / (2 * 1.5**2))
    w /= w.sum()
    out = np.empty((a.shape[0] - 10, a.shape[1] - 10))
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            p, q = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
            mp, mq = (w * p).sum(), (w * q).sum()
            vp, vq = (w * (p - mp) ** 2).sum(), (w * (q - mq) ** 2).sum()
            cov = (w * (p - mp) * (q - mq)).sum()
            out[i, j] = (2 * mp * mq + 1e-4) * (2 * cov + 9e-4) / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4))
    return out


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    a = rng.random((2, 3, 17, 23))
    return a, np.clip(a + 0.2 * rng.standard_normal(a.shape), 0, 1)


def test_against_numpy(pair):
    a, b = pair
    found = ssim_map(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    expected = np.stack([[numpy_ssim(x, y) for x, y in zip(p, q)] for p, q in zip(a, b)])
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert ssim(*map(torch.from_numpy, pair)) == pytest.approx(expected.mean(), abs=1e-12)


def test_equal_and_inverted_pictures(pair):
    a = torch.from_numpy(pair[0])
    assert ssim(a, a) == pytest.approx(1, abs=1e-12)
    assert ssim(a, 1 - a) < -0.5


def test_float32_is_enough(pair):
    a, b = map(torch.from_numpy, pair)
    assert ssim(a.float(), b.float()) == pytest.approx(ssim(a, b), abs=1e-6)


def test_masked_ssim_sees_only_windows_outside(pair):
    a = torch.from_numpy(pair[0])
    b = a.clone()
    b[..., :8] = 1 - b[..., :8]
    outside = torch.ones(2, 1, 17, 23)
    outside[..., :8] = 0
    assert masked_ssim(a, b, outside) == pytest.approx(1, abs=1e-9)
    assert masked_ssim(a, b, torch.ones(2, 1, 17, 23)) == pytest.approx(ssim(a, b), abs=1e-12)
    outside[..., :13] = 0  # 10 columns are left: no window fits
    assert masked_ssim(a, b, outside) is None


def test_refuses_different_shapes_and_small_pictures():
    with pytest.raises(ValueError, match="different shapes"):
        ssim(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 12))
    with pytest.raises(ValueError, match="11 x 11 pixels, but the pictures are 16 x 10"):
        ssim(torch.zeros(1, 3, 10, 16), torch.zeros(1, 3, 10, 16))
