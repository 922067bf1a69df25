"""Instance Centering against NumPy: only the mean goes, along the chosen axis."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ei2.temporal import instance_center

AXES = {"frames": 1, "frames_space": (1, 2), "channels": 3}


def video(frames: int = 5) -> torch.Tensor:
    """`b f d c` with a mean far from zero."""
    generator = torch.Generator().manual_seed(frames)
    return torch.randn(2, frames, 6, 8, generator=generator) + 3


@pytest.mark.parametrize("axis", AXES)
def test_against_numpy(axis):
    x = video().double().numpy()
    expected = x - x.mean(axis=AXES[axis], keepdims=True)
    np.testing.assert_allclose(instance_center(torch.from_numpy(x), axis).numpy(), expected, atol=1e-14)


@pytest.mark.parametrize("axis", AXES)
def test_the_mean_is_gone_and_the_scale_stays(axis):
    x = 100 * video()
    centered = instance_center(x / 100, axis)
    assert centered.mean(dim=AXES[axis]).abs().max() <= 1e-6
    spread = (instance_center(x, axis) / 100 - centered).abs().max()
    assert spread <= 1e-5  # a hundred times the input is a hundred times the output: nothing is normalized


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("frames", [1, 3, 5, 8, 24, 200])
def test_a_static_clip_becomes_exactly_zero(frames, dtype):
    x = video(1).to(dtype).expand(2, frames, 6, 8)
    assert torch.count_nonzero(instance_center(x)) == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_takes_its_mean_in_float32(dtype):
    x = (video(24) + 100).to(dtype)
    expected = x.double() - x.double().mean(dim=1, keepdim=True)
    centered = instance_center(x)
    assert centered.dtype == dtype
    resolution = torch.finfo(dtype).eps * expected.abs().max()
    assert (centered.double() - expected).abs().max() <= resolution


def test_an_unknown_axis_is_an_error():
    with pytest.raises(KeyError, match="rows"):
        instance_center(video(), "rows")
