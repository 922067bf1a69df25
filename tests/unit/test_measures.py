"""The measures against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ei2.measures import psnr


def test_psnr_against_numpy():
    rng = np.random.default_rng(0)
    a, b = rng.random((3, 4, 5, 3)), rng.random((3, 4, 5, 3))
    expected = 10 * np.log10(1 / np.mean((a - b) ** 2))
    assert psnr(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(expected, rel=1e-12)


def test_psnr_of_a_known_error():
    a = torch.full((2, 8, 8, 3), 0.5)
    assert psnr(a, a + 0.1) == pytest.approx(20.0, abs=1e-4)


def test_psnr_of_equal_clips_is_infinite():
    a = torch.rand(2, 3, 8, 8)
    assert psnr(a, a.clone()) == float("inf")


def test_psnr_refuses_different_shapes():
    with pytest.raises(ValueError, match=r"\(2, 8, 8, 3\) and \(2, 8, 4, 3\)"):
        psnr(torch.zeros(2, 8, 8, 3), torch.zeros(2, 8, 4, 3))
