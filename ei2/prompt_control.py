"""The value passed from EI2 Attention Control to EI2 Edit Sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .prompt import Prompt
from .token_alignment import TokenMap

SELF_MAPS = ("temporal", "spatial", "both")
UNCONDITIONAL = ("decoupled", "late")


@dataclass(frozen=True)
class Blend:
    """LocalBlend. `source`, `target`: `l`, 1 at the tokens of each prompt's blend words; `start`: the
    share of the steps after which it acts."""

    source: torch.Tensor
    target: torch.Tensor
    threshold: float
    start: float


@dataclass(frozen=True)
class Control:
    """How the target prompt's attention follows the source prompt's.

    `source`, `target`: the prompts as tokens; `source_conditioning`, `target_conditioning`: from the text
    encoder (one entry each); `tokens`: which target token takes which source token's map; `factors`: `l`, one
    per target token; `cross_replace`, `self_replace`: shares of the steps that take the source's maps, the
    latter for `self_maps`; `unconditional`: where an inversion's null-text embeddings are used, see
    `UNCONDITIONAL`; `blend`: LocalBlend, or None.

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
