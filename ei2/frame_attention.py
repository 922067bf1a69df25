"""How the compared methods let a frame's self-attention see other frames.

The attentions take projected queries, keys and values `(b f) n c` and return `(b f) n c`; `attend(q, k, v)` is
multi-head attention on `b n c`.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from einops import rearrange, repeat

from .ffam import Attend


def sparse_causal_attention(q, k, v, frames: int, attend: Attend) -> torch.Tensor:
    """SCA of Tune-A-Video (Wu et al., ICCV 2023): K, V = [frame 0 ; frame max(i - 1, 0)].

    Frames 0 and 1 therefore see frame 0 twice, which equals seeing it once.
    """
    previous = (torch.arange(frames) - 1).clamp(min=0)

    def first_and_previous(t):
        t = rearrange(t, "(b f) n c -> b f n c", f=frames)
        return torch.cat([t[:, :1].expand_as(t), t[:, previous]], dim=2).flatten(0, 1)

    return attend(q, first_and_previous(k), first_and_previous(v))


def first_frame_attention(q, k, v, frames: int, attend: Attend) -> torch.Tensor:
    """Video-P2P (Liu et al., CVPR 2024): K, V = frame 0."""
    first = (repeat(t[::frames], "b n c -> (b f) n c", f=frames) for t in (k, v))
    return attend(q, *first)


def dense_attention(q, k, v, frames: int, attend: Attend) -> torch.Tensor:
    """Every frame attends to all tokens of all frames, as Vid2Vid-zero (Wang et al., 2023) does in some layers."""
    q, k, v = (rearrange(t, "(b f) n c -> b (f n) c", f=frames) for t in (q, k, v))
    return rearrange(attend(q, k, v), "b (f n) c -> (b f) n c", f=frames)


def dense_places(places: Iterable[tuple[str, int, int]]) -> set[tuple[str, int, int]]:
    """The three blocks in which Vid2Vid-zero attends densely; in all others it uses SCA.

    `places`: the side (input, middle or output), number and index of every transformer block, in execution order. The
    source's code uses the first attention of the first down block, the middle block, and the first attention of the up
    blocks. If a transformer has several blocks (SDXL), its first block is used.
    """
    first = {}
    for place in places:
        first.setdefault(place[0], place)
    return set(first.values())
