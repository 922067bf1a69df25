"""FFAM, EI²'s fine-coarse frame attention (Zhang et al., NeurIPS 2023, arXiv 2305.17431).

The queries of frame i attend to the fine tokens of frame i and to the coarse tokens of all other frames:

    K_i, V_i = [ fine(z_i) ; coarse_s(z_j) for every j ≠ i ],   length d + (f - 1) · ⌈h/s⌉ · ⌈w/s⌉

The key and value projections have no bias, so pooling after them equals pooling before. Keys and values are therefore
projected once, and the projections are pooled.

There are three ways to compute the formula, with the same result, all in `_attend_each`:

* In groups of frames, with gathered copies of their keys and values: with gradients, and on a GPU. One call for several
  small frames saves overhead; `frames_at_once` chooses the group size.
* Frame by frame, with one copy of keys and values that is updated from frame to frame: without gradients on a CPU, and
  on a GPU if a group holds one frame. On a CPU this takes 0.5 to 1.0 times as long as groups for frames of 8 x 8 tokens
  or more (measured on one thread).
* In groups that are gathered again for the backward pass: with gradients, if `gathers_again` says so. Autograd would
  otherwise keep copies that grow with f².
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch.utils.checkpoint import checkpoint

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
CPU_SCORES = 2**19  # scores per head in a group on a CPU; they should fit in its cache
GPU_KEYS = 2**16  # gathered keys in a group on a GPU
KEPT_BYTES = 2**25  # gathered keys and values of all groups that autograd may keep


def coarse_tokens(x: torch.Tensor, height: int, width: int, factor: int, pool: str) -> torch.Tensor:
    """Spatially downsampled tokens, `n (h w) c` -> `n (⌈h/s⌉ ⌈w/s⌉) c`.

    `average` takes the mean of s x s cells; at odd sizes the last cells are smaller and average only real tokens.
    `stride` picks every s-th token. (The operator is our choice; the paper does not specify one.)
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

    `height`, `width`: of a frame in tokens; `factor`, `pool`: as in `coarse_tokens`; `attend(q, k, v)`: multi-head
    attention on `b n c`. Apart from q, k and v, memory grows with f, not with f².
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
    """FFAM for a window of a long clip. The coarse tokens come from a anchors: frames spread over the whole clip.

        K_i, V_i = [ fine(z_i) ; coarse_s(z_j) for every anchor j that is not frame i itself ]

    `q`, `k`, `v`: projected, `(b f) n c`, of the window's frames; `anchor_k`, `anchor_v`: `b a m c`; `own`: for each
    frame, which anchor it is, or None. Returns `(b f) n c`. (Our choice: the paper edits short clips.)
    """
    q, k, v = (rearrange(t, "(b f) n c -> b f n c", f=len(own)) for t in (q, k, v))
    kinds = [[i for i, anchor in enumerate(own) if (anchor is None) == plain] for plain in (True, False)]
    out = []
    for frames in filter(None, kinds):  # anchors have one key frame fewer than the others
        others = [[j for j in range(anchor_k.shape[1]) if j != own[i]] for i in frames]
        out.append(_attend_each(q[:, frames], k[:, frames], v[:, frames], anchor_k, anchor_v, others, attend))
    order = torch.tensor(kinds[0] + kinds[1], device=q.device).argsort()
    return torch.cat(out, dim=1)[:, order].flatten(0, 1)


def _attend_each(q, k, v, coarse_k, coarse_v, others: list[list[int]], attend: Attend) -> torch.Tensor:
    """Each frame of `b f n c` attends to its own tokens and to the coarse tokens `b a m c` of the anchors in `others`,
    which lists the same number for every frame. Returns `b f n c`."""
    (videos, frames, fine, channels), gradients = k.shape, torch.is_grad_enabled()
    coarse = len(others[0]) * coarse_k.shape[2]
    group = frames_at_once(frames, fine, coarse, q.device, gradients)
    if group == 1 and not gradients:
        return _attend_in_turn(q, k, v, coarse_k, coarse_v, others, attend)
    picks = torch.tensor(others, device=q.device)

    def attend_group(q, k, v, coarse_k, coarse_v, picks):
        keys, values = _fine_and_coarse(k, coarse_k, picks), _fine_and_coarse(v, coarse_v, picks)
        return attend(q.flatten(0, 1), keys, values).unflatten(0, q.shape[:2])

    gathered = 2 * videos * frames * (fine + coarse) * channels * k.element_size()
    again = gradients and gathers_again(frames, gathered)
    run = partial(checkpoint, attend_group, use_reentrant=False) if again else attend_group
    # split, not slices: the gradient of each slice would be as large as the whole
    groups = zip(*(t.split(group, dim=1) for t in (q, k, v)), picks.split(group))
    return torch.cat([run(*own, coarse_k, coarse_v, others) for *own, others in groups], dim=1)


def _attend_in_turn(q, k, v, coarse_k, coarse_v, others: list[list[int]], attend: Attend) -> torch.Tensor:
    """Like `_attend_each`, but frame by frame with one copy of keys and values. Each frame overwrites the fine tokens
    and those coarse tokens that differ from the previous frame's (one frame's tokens). Only without gradients."""
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


def frames_at_once(frames: int, fine: int, coarse: int, device: torch.device, gradients: bool = True) -> int:
    """The number of frames in one attention call. A frame has `fine` queries and `fine + coarse` keys."""
    if device.type != "cpu":
        return max(1, min(frames, GPU_KEYS // (fine + coarse)))
    return max(1, min(frames, CPU_SCORES // (fine * (fine + coarse)))) if gradients else 1


def gathers_again(frames: int, gathered: int) -> bool:
    """Whether keys and values are gathered again for the backward pass. `gathered`:
    the size of all groups' copies in bytes."""
    return frames > 1 and gathered > KEPT_BYTES


def _fine_and_coarse(fine: torch.Tensor, coarse: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Joins a group's fine tokens `b g n c` with the coarse tokens `b a m c` of the anchors in `others`
    (`g o`). Returns `(b g) (n + o m) c`."""
    picked = coarse[:, others].flatten(2, 3) if others.numel() else fine[:, :, :0]
    return torch.cat([fine, picked], dim=2).flatten(0, 1)
