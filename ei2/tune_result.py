"""What one-shot tuning leaves behind, independent of any loaded model."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from .settings import InflationSettings


@dataclass(frozen=True)
class TuneResult:
    """Weights that, applied to an inflated model with the same settings, give the tuned one.

    `temporal`: effective weights of the temporal modules, by block and layer; `query`: what was added to the q
    projections, by the UNet's weight name; all on the CPU.
    """

    settings: InflationSettings
    temporal: dict[str, torch.Tensor]
    query: dict[str, torch.Tensor]
    losses: list[float] = field(default_factory=list)
    frames: int = 0
