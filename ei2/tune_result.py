"""What one-shot tuning leaves behind, independent of any loaded model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

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

    def scaled(self, strength: float) -> TuneResult:
        """The same at another strength: 1 is this one, 0 leaves nothing of it. What the temporal modules add to the
        features and what was added to the q projections is multiplied by it."""
        outputs = {name: weight * strength for name, weight in self.temporal.items() if ".to_out." in name}
        query = {name: weight * strength for name, weight in self.query.items()}
        return replace(self, temporal={**self.temporal, **outputs}, query=query)
