"""The value that travels from EI2 Attention Control to EI2 Edit Sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .token_alignment import Prompt, TokenMap

SELF_MAPS = ("temporal", "spatial", "both")
UNCONDITIONAL = ("decoupled", "late")


@dataclass(frozen=True)
class Blend:
    """LocalBlend. `source`, `target`: `l`, 1 at the blended words' tokens in each prompt; `start`: the share of the
    steps after which it acts."""

    source: torch.Tensor
    target: torch.Tensor
    threshold: float
    start: float


@dataclass(frozen=True)
class Control:
    """How the target prompt's attention follows the source prompt's.

    `source`, `target`: the prompts as tokens; `source_conditioning`, `target_conditioning`: as the text encoder gives
    them (one entry each); `tokens`: which token takes whose map; `factors`: `l`, of the target's tokens;
    `cross_replace`, `self_replace`: shares of the steps in which maps are taken from the source, the latter's on
    `self_maps`; `unconditional`: where an inversion's null-text embeddings are used, see `UNCONDITIONAL`; `blend`:
    LocalBlend, if asked for.

    With `decoupled` (Video-P2P) the source uses the embeddings and the target the plain negative prompt. With `late`
    (Vid2Vid-zero) both use the plain one in the first half of the steps and the embeddings from then on.
    """

    source: Prompt
    target: Prompt
    source_conditioning: list
    target_conditioning: list
    tokens: TokenMap
    factors: torch.Tensor
    cross_replace: float
    self_replace: float
    self_maps: str
    unconditional: str
    blend: Blend | None = None
