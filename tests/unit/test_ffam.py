"""FFAM against the plain reading of its formula: frame by frame, cell by cell, everything concatenated, float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ei2.attention import attention
from ei2.ffam import anchored_attention, coarse_tokens, fine_coarse_attention, frames_at_once
from ei2.frame_attention import dense_attention

from .attention_formula import attend_by_formula

HEADS, WIDTH = 2, 4
CHANNELS = HEADS * WIDTH


def attend(q, k, v):
    return attention(q, k, v, HEADS)


def coarse_by_formula(tokens: np.ndarray, height: int, width: int, s: int, pool: str) -> np.ndarray:
    """`(h w) c` -> `(⌈h/s⌉ ⌈w/s⌉) c`; a cell at the border holds the real tokens only."""
    grid = tokens.reshape(height, width, -1)
    cells = []
    for y in range(0, height, s):
        for x in range(0, width, s):
            cell = grid[y : y + s, x : x + s].reshape(-1, grid.shape[-1])
            cells.append(cell[0] if pool == "stride" else cell.mean(axis=0))
    return np.stack(cells)


def naive(q, k, v, frames: int, height: int, width: int, s: int, pool: str) -> np.ndarray:
    q, k, v = (t.double().numpy() for t in (q, k, v))
    out = []
    for row in range(len(q)):
        video = row // frames * frames
        others = [j for j in range(video, video + frames) if j != row]
        keys = np.concatenate([k[row], *(coarse_by_formula(k[j], height, width, s, pool) for j in others)])
        values = np.concatenate([v[row], *(coarse_by_formula(v[j], height, width, s, pool) for j in others)])
        assert len(keys) == height * width + (frames - 1) * math.ceil(height / s) * math.ceil(width / s)
        out.append(attend_by_formula(q[row], keys, values, HEADS))
    return np.stack(out)


def qkv(rows: int, tokens: int, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(3, rows, tokens, CHANNELS, generator=torch.Generator().manual_seed(rows + tokens), dtype=dtype)


@pytest.mark.parametrize("pool", ["average", "stride"])
@pytest.mark.parametrize("factor", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("videos, frames", [(1, 1), (1, 4), (2, 3)])
@pytest.mark.parametrize("height, width", [(4, 4), (5, 7), (3, 8)])
def test_fast_equals_naive(height, width, videos, frames, factor, pool):
    q, k, v = qkv(videos * frames, height * width)
    fast = fine_coarse_attention(q, k, v, frames, height, width, factor, pool, attend)
    expected = naive(q, k, v, frames, height, width, factor, pool)
    assert np.abs(fast.numpy() - expected).max() <= 1e-5


@pytest.mark.parametrize("pool", ["average", "stride"])
def test_factor_one_is_dense_attention(pool):
    q, k, v = qkv(2 * 3, 15)
    fast = fine_coarse_attention(q, k, v, 3, 3, 5, 1, pool, attend)
    torch.testing.assert_close(fast, dense_attention(q, k, v, 3, attend), atol=1e-5, rtol=0)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_one_frame_sees_itself_only(factor):
    q, k, v = qkv(2, 15)
    assert torch.equal(fine_coarse_attention(q, k, v, 1, 3, 5, factor, "average", attend), attend(q, k, v))


def test_permuting_frames_permutes_the_output():
    q, k, v = qkv(5, 12, torch.float64)
    order = torch.tensor([3, 0, 4, 1, 2])
    arguments = (5, 3, 4, 2, "average", attend)
    permuted = fine_coarse_attention(q[order], k[order], v[order], *arguments)
    torch.testing.assert_close(permuted, fine_coarse_attention(q, k, v, *arguments)[order], atol=1e-12, rtol=0)


def test_border_cells_count_only_real_tokens():
    """A constant picture stays constant however the cells are cut."""
    ones = torch.ones(1, 5 * 7, 3)
    for factor in (2, 3, 4, 8):
        coarse = coarse_tokens(ones, 5, 7, factor, "average")
        assert coarse.shape == (1, math.ceil(5 / factor) * math.ceil(7 / factor), 3)
        assert torch.equal(coarse, torch.ones_like(coarse))


@pytest.mark.parametrize("pool", ["average", "stride"])
@pytest.mark.parametrize("height, width, factor", [(5, 7, 2), (7, 5, 3), (6, 4, 2), (2, 3, 5)])
def test_coarse_tokens_against_numpy(height, width, factor, pool):
    tokens = qkv(1, height * width, torch.float64)[0]
    expected = coarse_by_formula(tokens[0].numpy(), height, width, factor, pool)
    np.testing.assert_allclose(coarse_tokens(tokens, height, width, factor, pool)[0].numpy(), expected, atol=1e-14)


def test_pooling_after_the_projection_equals_pooling_before():
    weight = torch.randn(CHANNELS, CHANNELS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = qkv(2, 15, torch.float64)[0]
    before = coarse_tokens(z, 3, 5, 2, "average") @ weight.T
    torch.testing.assert_close(coarse_tokens(z @ weight.T, 3, 5, 2, "average"), before)


@pytest.mark.parametrize("height, width, frames, calls", [(4, 4, 6, 1), (16, 16, 8, 4), (32, 32, 6, 6), (20, 32, 5, 5)])
def test_frames_are_attended_together_while_they_are_small(height, width, frames, calls):
    """Memory for keys grows with f, not f²: large frames get their keys one after the other."""
    q, k, v = qkv(frames, height * width)
    sizes = []

    def measuring(q, k, v):
        sizes.append(k.shape)
        return attend(q, k, v)

    fine_coarse_attention(q, k, v, frames, height, width, 2, "average", measuring)
    assert len(sizes) == calls
    keys = height * width + (frames - 1) * math.ceil(height / 2) * math.ceil(width / 2)
    assert {shape[1:] for shape in sizes} == {(keys, CHANNELS)} and sum(shape[0] for shape in sizes) == frames


def test_groups_on_a_gpu():
    gpu = torch.device("cuda")
    assert frames_at_once(24, 64, 23 * 16, gpu) == 24
    assert frames_at_once(24, 4096, 23 * 1024, gpu) == 2
    assert frames_at_once(64, 4096, 63 * 1024, gpu) == 1


def test_large_keys_are_made_anew_for_the_backward_pass():
    """What autograd keeps holds no gathered keys, and the gradients are those of the plain form."""
    frames, height, width, channels = 7, 48, 48, 128
    generator = torch.Generator().manual_seed(0)
    q, k, v, weight = (torch.randn(frames, height * width, channels, generator=generator) for _ in range(4))
    one_head = lambda q, k, v: attention(q, k, v, 1)
    kept = []

    def gradients(run):
        inputs = [t.clone().requires_grad_() for t in (q, k, v)]
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
            out = run(*inputs)
        return torch.autograd.grad((out * weight).sum(), inputs)

    ours = gradients(lambda *t: fine_coarse_attention(*t, frames, height, width, 2, "average", one_head))
    keys = height * width + (frames - 1) * height * width // 4
    assert kept and not any(keys in shape for shape in kept)

    def frame_by_frame(q, k, v):
        coarse = [coarse_tokens(t, height, width, 2, "average") for t in (k, v)]
        rows = []
        for i in range(frames):
            others = [j for j in range(frames) if j != i]
            keys, values = (torch.cat([t[i : i + 1], c[others].flatten(0, 1)[None]], 1) for t, c in zip((k, v), coarse))
            rows.append(one_head(q[i : i + 1], keys, values))
        return torch.cat(rows)

    for mine, expected in zip(ours, gradients(frame_by_frame)):
        torch.testing.assert_close(mine, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("own", [[None, None, None], [0, None, 1], [1, 0, 2]], ids=str)
@pytest.mark.parametrize("videos", [1, 2])
def test_anchored_attention_equals_naive(own, videos):
    """Each frame of a window sees its own fine tokens and the coarse ones of every anchor that it is not itself."""
    frames, anchors, height, width = len(own), 3, 5, 7
    q, k, v = qkv(videos * frames, height * width)
    coarse = torch.randn(2, videos, anchors, 12, CHANNELS, generator=torch.Generator().manual_seed(1))
    found = anchored_attention(q, k, v, *coarse, own, attend)
    for row in range(len(q)):
        video, frame = divmod(row, frames)
        others = [anchor for anchor in range(anchors) if anchor != own[frame]]
        keys, values = (
            np.concatenate([fine[row].double().numpy(), *(tokens[video, j].double().numpy() for j in others)])
            for fine, tokens in zip((k, v), coarse)
        )
        assert len(keys) == height * width + len(others) * 12
        expected = attend_by_formula(q[row].double().numpy(), keys, values, HEADS)
        assert np.abs(found[row].numpy() - expected).max() <= 1e-5


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("own", [[None, 1, None, 0], [2, 0, None, 1]], ids=str)
def test_large_frames_one_after_the_other(own, gradients):
    """Without gradients one copy of keys and values goes from frame to frame."""
    height, width, videos, frames = 24, 25, 2, len(own)
    q, k, v = qkv(videos * frames, height * width)
    coarse = torch.randn(2, videos, 3, height * width // 2, CHANNELS, generator=torch.Generator().manual_seed(1))
    seen = []

    def looking(q, k, v):
        seen.append((k.data_ptr(), len(k)))
        return attend(q, k, v)

    with torch.set_grad_enabled(gradients):
        clip = fine_coarse_attention(q, k, v, frames, height, width, 2, "average", looking)
        copies, sizes = {pointer for pointer, _ in seen}, {size for _, size in seen}
        window = anchored_attention(q, k, v, *coarse, own, attend)
    assert len(seen) == frames and sizes == {videos} and (gradients or len(copies) == 1)
    assert np.abs(clip.numpy() - naive(q, k, v, frames, height, width, 2, "average")).max() <= 1e-5
    for row in range(videos * frames):
        video, frame = divmod(row, frames)
        others = [anchor for anchor in range(3) if anchor != own[frame]]
        keys, values = (torch.cat([fine[row], *tokens[video, others]])[None] for fine, tokens in zip((k, v), coarse))
        torch.testing.assert_close(window[row], attend(q[row : row + 1], keys, values)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_a_clip_of_nothing_but_anchors_is_an_ordinary_one(factor):
    frames, height, width = 4, 5, 7
    q, k, v = qkv(2 * frames, height * width)
    coarse = [coarse_tokens(t, height, width, factor, "average").unflatten(0, (2, frames)) for t in (k, v)]
    expected = fine_coarse_attention(q, k, v, frames, height, width, factor, "average", attend)
    torch.testing.assert_close(anchored_attention(q, k, v, *coarse, range(frames), attend), expected, atol=1e-5, rtol=0)
