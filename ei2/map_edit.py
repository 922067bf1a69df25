"""Attention control: the target prompt's maps, computed from the source prompt's (Prompt-to-Prompt, Hertz et al., ICLR
2023; Video-P2P, Liu et al., CVPR 2024).

With `A_s` and `A_t`, the maps softmax(q kᵀ / √width) of source and target over l
tokens, the edited map per query and head is

    A = A_s M diag(t r) + A_t diag((1 - t) r)

M: the token map's matrix; t: where the source's maps are used (`shared`; 0 after the last such step); r: the
reweighting factors. Only A V is needed, and A is linear in both maps, so

    A V = attention(q_s, k_s, (M diag(t r)) V) + attention(q_t, k_t, diag((1 - t) r) V)

for every head and kernel: two ordinary attentions with changed values, and no map is stored. Spatial and temporal
self-attention take the source's map unchanged: A V = attention(q_s, k_s, v_t), so only q and k are exchanged. The maps
themselves (`attention_maps`) are computed only for plots and LocalBlend.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from einops import rearrange

from .ffam import Attend
from .token_alignment import TokenMap


@dataclass(frozen=True)
class MapEdit:
    """`A = A_s @ from_source + A_t * own`; `from_source`: `l l`, source tokens to target tokens, `own`: `l`.

    Its properties are computed once, because on a GPU each one has to wait for the device.
    """

    from_source: torch.Tensor
    own: torch.Tensor

    @classmethod
    def of(cls, tokens: TokenMap, taken: bool, factors: torch.Tensor) -> MapEdit:
        """`taken`: whether this step uses the source's maps; `factors`: `l`, one per target token."""
        shared = tokens.shared * float(taken)
        return cls(tokens.matrix * (shared * factors), (1 - shared) * factors)

    @cached_property
    def needs_source(self) -> bool:
        return bool(self.from_source.any())

    @cached_property
    def needs_own(self) -> bool:
        return bool(self.own.any())

    @cached_property
    def changes_nothing(self) -> bool:
        return not self.needs_source and bool((self.own == 1).all())


def controlled_attention(
    source_q: torch.Tensor,
    source_k: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    edit: MapEdit,
    attend: Attend,
) -> torch.Tensor:
    """Cross-attention of the target with edited maps.

    `source_q`, `q`: `f d c`; `source_k`, `k`, `v`: `f l c`; `attend(q, k, v)` is multi-head attention on `b n c`.
    Returns `f d c`. A part whose weights are all zero is not computed.
    """
    out = None
    if edit.needs_own:
        out = attend(q, k, v * edit.own.to(v)[:, None])
    if edit.needs_source:
        taken = attend(source_q, source_k, edit.from_source.to(v) @ v)
        out = taken if out is None else out + taken
    return torch.zeros_like(q) if out is None else out


def attention_maps(q: torch.Tensor, k: torch.Tensor, heads: int) -> torch.Tensor:
    """softmax(q kᵀ / √width), averaged over heads, in at least float32: `f d (heads c)`, `f l (heads c)` -> `f d l`.

    Computed frame by frame: apart from the result, only one frame's maps of all heads are in memory.
    """
    maps = []
    for queries, keys in zip(q, k):
        queries, keys = (
            rearrange(t.to(torch.promote_types(t.dtype, torch.float32)), "n (h c) -> h n c", h=heads)
            for t in (queries, keys)
        )
        maps.append((queries @ keys.transpose(-1, -2) * queries.shape[-1] ** -0.5).softmax(dim=-1).mean(dim=0))
    return torch.stack(maps)


def edited_maps(source: torch.Tensor, own: torch.Tensor, edit: MapEdit) -> torch.Tensor:
    """The maps that `controlled_attention` applies to the values, `… d l`, for one head or averaged over heads. The
    edit is the same for every head, so editing and averaging commute."""
    return source @ edit.from_source.to(source) + own * edit.own.to(own)


def steps_of(share: float, steps: int) -> int:
    """How many of the first `steps` a share of 0…1 covers, rounded down as in Video-P2P and Vid2Vid-zero: they use
    `int(share * steps)` for replaced self-attention and for the start of LocalBlend.

    Raises `ValueError` for a share outside 0…1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"A share of the steps must be from 0 to 1, not {share}.")
    return int(share * steps)


def cross_steps_of(share: float, steps: int) -> int:
    """The same for replaced cross-attention, and for the first half of the steps, in which
    Vid2Vid-zero does not use its learned embeddings. Here the sources take the share of `steps + 1` (a
    table of `steps + 1` rows; `i < steps / 2`)."""
    return min(steps, steps_of(share, steps + 1))
