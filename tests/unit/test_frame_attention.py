"""The rivals' frame attention against float64 NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ei2.attention import attention
from ei2.frame_attention import dense_attention, first_frame_attention, sparse_causal_attention

HEADS, WIDTH = 2, 3
FRAMES_SEEN = {
    sparse_causal_attention: lambda i, frames: [0, max(i - 1, 0)],
    first_frame_attention: lambda i, frames: [0],
    dense_attention: lambda i, frames: list(range(frames)),
}


def attend_by_formula(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Multi-head softmax attention, `n c` queries over `m c` keys and values."""
    out = []
    for h in range(HEADS):
        part = slice(h * WIDTH, (h + 1) * WIDTH)
        scores = q[:, part] @ k[:, part].T / np.sqrt(WIDTH)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        out.append(weights / weights.sum(axis=1, keepdims=True) @ v[:, part])
    return np.concatenate(out, axis=1)


def attend(q, k, v):
    return attention(q, k, v, HEADS)


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
            expected = attend_by_formula(q[row].numpy(), keys, values)
            np.testing.assert_allclose(result[row].numpy(), expected, atol=1e-12)


def test_sca_sees_no_later_frame():
    q, k, v = torch.randn(3, 4, 5, HEADS * WIDTH, generator=torch.Generator().manual_seed(0))
    before = sparse_causal_attention(q, k, v, 4, attend)
    k[3], v[3] = 9, 9
    assert torch.equal(sparse_causal_attention(q, k, v, 4, attend), before)
