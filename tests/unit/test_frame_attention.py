"""The rivals' frame attention against float64 NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ei2.attention import attention
from ei2.frame_attention import dense_attention, dense_places, first_frame_attention, sparse_causal_attention

from .attention_formula import attend_by_formula

HEADS, WIDTH = 2, 3
FRAMES_SEEN = {
    sparse_causal_attention: lambda i, frames: [0, max(i - 1, 0)],
    first_frame_attention: lambda i, frames: [0],
    dense_attention: lambda i, frames: list(range(frames)),
}


def attend(q, k, v):
    return attention(q, k, v, HEADS)


def places_of(levels: list[int], up: list[int]) -> list[tuple[str, int, int]]:
    """Of a UNet with one resolution per entry, two ResBlocks each going down and three going up, every one followed by
    that many transformer blocks; between the resolutions lies a layer without any."""
    down = [("input", 1 + 3 * level + i, j) for level, n in enumerate(levels) for i in range(2) for j in range(n)]
    middle = [("middle", 0, j) for j in range(max(levels))]
    up = [("output", 3 * level + i, j) for level, n in enumerate(up) for i in range(3) for j in range(n)]
    return down + middle + up


@pytest.mark.parametrize(
    "places, dense",
    [
        (places_of([1, 1, 1, 0], [0, 1, 1, 1]), {("input", 1, 0), ("middle", 0, 0), ("output", 3, 0)}),
        (places_of([0, 2, 10], [10, 2, 0]), {("input", 4, 0), ("middle", 0, 0), ("output", 0, 0)}),
        ([("output", 2, 0), ("output", 3, 0)], {("output", 2, 0)}),  # no attention going down or in the middle
        ([], set()),
    ],
    ids=["SD1.5", "SDXL", "one side", "none"],
)
def test_where_vid2vid_zero_attends_densely(places, dense):
    assert dense_places(places) == dense


@pytest.mark.parametrize("method", FRAMES_SEEN, ids=lambda method: method.__name__)
@pytest.mark.parametrize("videos, frames", [(1, 1), (1, 4), (2, 3)])
def test_against_numpy(method, videos, frames):
    generator = torch.Generator().manual_seed(frames)
    q, k, v = torch.randn(3, videos * frames, 5, HEADS * WIDTH, generator=generator, dtype=torch.float64)
    result = method(q, k, v, frames, attend)
    for video in range(videos):
        for i in range(frames):
            seen = [video * frames + j for j in FRAMES_SEEN[method](i, frames)]
            keys, values = (np.concatenate([t[j].numpy() for j in seen]) for t in (k, v))
            row = video * frames + i
            expected = attend_by_formula(q[row].numpy(), keys, values, HEADS)
            np.testing.assert_allclose(result[row].numpy(), expected, atol=1e-12)


def test_sca_sees_no_later_frame():
    q, k, v = torch.randn(3, 4, 5, HEADS * WIDTH, generator=torch.Generator().manual_seed(0))
    before = sparse_causal_attention(q, k, v, 4, attend)
    k[3], v[3] = 9, 9
    assert torch.equal(sparse_causal_attention(q, k, v, 4, attend), before)
