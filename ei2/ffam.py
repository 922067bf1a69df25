"""FFAM, EI²'s fine-coarse frame attention (Zhang et al., NeurIPS 2023, arXiv 2305.17431).

The queries of frame i attend to the fine tokens of frame i and to the coarse tokens of all other frames:

    K_i, V_i = [ fine(z_i) ; coarse_s(z_j) for every j ≠ i ],   length d + (f - 1) · ⌈h/s⌉ · ⌈w/s⌉

The key and value projections have no bias, so pooling after them equals pooling before: here the keys and values
arrive projected once, and only they are pooled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch.utils.checkpoint import checkpoint

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
CPU_SCORES = 2**19  # a head's, per group of frames
GATHERED_TOKENS = 2**16  # keys of a group of frames on a GPU
FEW = 2  # frames: so many at once gain less than the copies of their keys cost
KEPT_BYTES = 2**25  # of all groups' gathered keys and values under autograd


def coarse_tokens(x: torch.Tensor, height: int, width: int, factor: int, pool: str) -> torch.Tensor:
    """Spatially downsampled tokens, `n (h w) c` -> `n (⌈h/s⌉ ⌈w/s⌉) c`.

    `average` pools by s x s cells; at odd sizes the last cells are smaller and only real tokens count.
    `stride` picks every s-th token. (The operator is our choice; the paper names none.)
    """
    if factor == 1:
        return x
    grid = rearrange(x, "n (h w) c -> n c h w", h=height, w=width)
    if pool == "stride":
        grid = grid[..., ::factor, ::factor]
    else:
        grid = F.avg_pool2d(grid, factor, ceil_mode=True, count_include_pad=False)
    return rearrange(grid, "n c h w -> n (h w) c")


def fine_coarse_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    frames: int,
    height: int,
    width: int,
    factor: int,
    pool: str,
    attend: Attend,
) -> torch.Tensor:
    """FFAM on projected queries, keys and values, each `(b f) (h w) c` -> `(b f) (h w) c`.

    `attend(q, k, v)` is multi-head attention on `b n c`. As many frames are attended at once as `frames_at_once` says,
    and only theirs are the keys and values that exist at a time: besides q, k, v, memory grows with f, not with f².
    """
    coarse_k, coarse_v = (
        rearrange(coarse_tokens(t, height, width, factor, pool), "(b f) n c -> b f n c", f=frames) for t in (k, v)
    )
    q, k, v = (rearrange(t, "(b f) n c -> b f n c", f=frames) for t in (q, k, v))
    others = [[j for j in range(frames) if j != i] for i in range(frames)]
    return _attend_each(q, k, v, coarse_k, coarse_v, others, attend).flatten(0, 1)


def anchored_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    anchor_k: torch.Tensor,
    anchor_v: torch.Tensor,
    own: Sequence[int | None],
    attend: Attend,
) -> torch.Tensor:
    """FFAM for a window of a long clip: the coarse tokens are those of a anchors, frames spread over the whole clip.

        K_i, V_i = [ fine(z_i) ; coarse_s(z_j) for every anchor j that is not frame i itself ]

    `q`, `k`, `v`: `(b f) n c`, projected, of the window's frames; `anchor_k`, `anchor_v`: `b a m c`; `own`: per frame,
    which anchor it is, if any. Returns `(b f) n c`. (For long clips; our choice, the paper edits short ones.)
    """
    q, k, v = (rearrange(t, "(b f) n c -> b f n c", f=len(own)) for t in (q, k, v))
    kinds = [[i for i, anchor in enumerate(own) if (anchor is None) == plain] for plain in (True, False)]
    out = []
    for frames in filter(None, kinds):  # anchors have one key frame less than the others
        others = [[j for j in range(anchor_k.shape[1]) if j != own[i]] for i in frames]
        out.append(_attend_each(q[:, frames], k[:, frames], v[:, frames], anchor_k, anchor_v, others, attend))
    order = torch.tensor(kinds[0] + kinds[1], device=q.device).argsort()
    return torch.cat(out, dim=1)[:, order].flatten(0, 1)


def _attend_each(q, k, v, coarse_k, coarse_v, others: list[list[int]], attend: Attend) -> torch.Tensor:
    """Frames `b f n c`, each to its own tokens and to the coarse ones of `b a m c` that `others` picks for it, as many
    for each; -> `b f n c`."""
    frames, seen = len(others), k.shape[2] + len(others[0]) * coarse_k.shape[2]
    group = frames_at_once(frames, k.shape[2], seen - k.shape[2], q.device)
    if group <= FEW and not torch.is_grad_enabled():
        return _attend_in_turn(q, k, v, coarse_k, coarse_v, others, attend)
    picks = torch.tensor(others, device=q.device)

    def attend_group(q, k, v, coarse_k, coarse_v, picks):
        keys, values = _fine_and_coarse(k, coarse_k, picks), _fine_and_coarse(v, coarse_v, picks)
        return attend(q.flatten(0, 1), keys, values)

    gathered = 2 * q.shape[0] * frames * seen * k.shape[3]
    # kept for the backward pass, the gathered keys and values would grow with f²: where they are large, make them anew
    again = torch.is_grad_enabled() and group < frames and gathered * k.element_size() > KEPT_BYTES
    run = partial(checkpoint, attend_group, use_reentrant=False) if again else attend_group
    out = [
        rearrange(run(q[:, i], k[:, i], v[:, i], coarse_k, coarse_v, picks[i]), "(b f) n c -> b f n c", b=q.shape[0])
        for i in (slice(start, start + group) for start in range(0, frames, group))
    ]
    return torch.cat(out, dim=1)


def _attend_in_turn(q, k, v, coarse_k, coarse_v, others: list[list[int]], attend: Attend) -> torch.Tensor:
    """The same frame by frame without gradients, which allows to keep one copy of keys and values: from a frame to the
    next its own tokens are exchanged, and of the coarse ones those that differ, a single frame's of all."""
    picks = torch.tensor(others[:1], device=q.device)
    keys, values = _fine_and_coarse(k[:, :1], coarse_k, picks), _fine_and_coarse(v[:, :1], coarse_v, picks)
    fine, size = k.shape[2], coarse_k.shape[2]
    out = [attend(q[:, 0], keys, values)]
    for i in range(1, len(others)):
        for joint, own, coarse in ((keys, k, coarse_k), (values, v, coarse_v)):
            joint[:, :fine] = own[:, i]
            for slot, (before, now) in enumerate(zip(others[i - 1], others[i])):
                if now != before:
                    joint[:, fine + slot * size : fine + (slot + 1) * size] = coarse[:, now]
        out.append(attend(q[:, i], keys, values))
    return torch.stack(out, dim=1)


def frames_at_once(frames: int, fine: int, coarse: int, device: torch.device) -> int:
    """How many frames are attended in one call, by their `fine` queries and `fine + coarse` keys. Few tokens are worth
    gathering, which saves calls; many fill the device alone, and a CPU's cache holds the maps of one frame."""
    if device.type == "cpu":
        return max(1, min(frames, CPU_SCORES // (fine * (fine + coarse))))
    return max(1, min(frames, GATHERED_TOKENS // (fine + coarse)))


def _fine_and_coarse(fine: torch.Tensor, coarse: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """A group's fine tokens `b g n c` beside all frames' coarse ones `b f m c` that `others` `g (f - 1)` picks for
    each, -> `(b g) (n + (f - 1) m) c`."""
    picked = coarse[:, others].flatten(2, 3) if others.numel() else fine[:, :, :0]
    return torch.cat([fine, picked], dim=2).flatten(0, 1)
