"""FFAM, EI²'s fine-coarse frame attention (Zhang et al., NeurIPS 2023, arXiv 2305.17431).

The queries of frame i attend to the fine tokens of frame i and to the coarse tokens of all other frames:

    K_i, V_i = [ fine(z_i) ; coarse_s(z_j) for every j ≠ i ],   length d + (f - 1) · ⌈h/s⌉ · ⌈w/s⌉

The key and value projections have no bias, so pooling after them equals pooling before: here the keys and values
arrive projected once, and only they are pooled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


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

    `attend(q, k, v)` is multi-head attention on `b n c`. Frames are attended one after the other, so that the coarse
    tokens are never copied f times: besides q, k, v, only one frame's keys and values exist at a time.
    """
    coarse_k, coarse_v = (
        rearrange(coarse_tokens(t, height, width, factor, pool), "(b f) n c -> b f n c", f=frames) for t in (k, v)
    )
    q, k, v = (rearrange(t, "(b f) n c -> b f n c", f=frames) for t in (q, k, v))
    out = []
    for i in range(frames):
        keys = torch.cat([k[:, i], _others(coarse_k, i)], dim=1)
        values = torch.cat([v[:, i], _others(coarse_v, i)], dim=1)
        out.append(attend(q[:, i], keys, values))
    return rearrange(torch.stack(out, dim=1), "b f n c -> (b f) n c")


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
    out = []
    for i, anchor in enumerate(own):
        coarse = [t.flatten(1, 2) if anchor is None else _others(t, anchor) for t in (anchor_k, anchor_v)]
        keys, values = (torch.cat([fine[:, i], other], dim=1) for fine, other in zip((k, v), coarse))
        out.append(attend(q[:, i], keys, values))
    return rearrange(torch.stack(out, dim=1), "b f n c -> (b f) n c")


def _others(coarse: torch.Tensor, i: int) -> torch.Tensor:
    """Coarse tokens of all frames but i, `b f n c` -> `b ((f - 1) n) c`."""
    return torch.cat([coarse[:, :i].flatten(1, 2), coarse[:, i + 1 :].flatten(1, 2)], dim=1)
