"""Group Norm made joint over frames, against the formula in float64 NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ei2.video_group_norm import hook_group_norm

GROUPS, CHANNELS = 2, 6


def by_formula(x: np.ndarray, frames: int, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    """`(b f) c h w`: one mean and variance per video and group, over its frames, channels and pixels."""
    out, width = np.empty_like(x), CHANNELS // GROUPS
    for start in range(0, len(x), frames):
        for first in range(0, CHANNELS, width):
            part = (slice(start, start + frames), slice(first, first + width))
            mean = x[part].sum() / x[part].size
            variance = ((x[part] - mean) ** 2).sum() / x[part].size
            out[part] = (x[part] - mean) / np.sqrt(variance + eps)
    return out * weight[:, None, None] + bias[:, None, None]


def setup(rows: int) -> tuple[torch.nn.GroupNorm, torch.Tensor]:
    """A norm with a trained affine part, and frames that differ in brightness and contrast."""
    generator = torch.Generator().manual_seed(rows)
    norm = torch.nn.GroupNorm(GROUPS, CHANNELS, eps=1e-3).double()
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    x = torch.randn(rows, CHANNELS, 3, 5, generator=generator, dtype=torch.float64)
    return norm, x * torch.arange(1, rows + 1)[:, None, None, None] + torch.arange(rows)[:, None, None, None]


@pytest.mark.parametrize("videos, frames", [(1, 1), (1, 4), (2, 3), (3, 1)])
def test_against_numpy(videos, frames):
    norm, x = setup(videos * frames)
    parts = x.numpy(), frames, norm.weight.detach().numpy(), norm.bias.detach().numpy(), norm.eps
    handles = hook_group_norm(norm, frames)
    result = norm(x).detach().numpy()
    np.testing.assert_allclose(result, by_formula(*parts), atol=1e-12)
    for handle in handles:
        handle.remove()
    np.testing.assert_allclose(norm(x).detach().numpy(), by_formula(parts[0], 1, *parts[2:]), atol=1e-12)
    if frames > 1:
        assert np.abs(result - norm(x).detach().numpy()).max() > 0.1


def test_one_frame_is_bit_for_bit_the_plain_norm():
    norm, x = setup(2)
    plain = norm(x)
    hook_group_norm(norm, 1)
    assert torch.equal(norm(x), plain)
