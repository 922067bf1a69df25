"""What one-shot tuning leaves behind, independent of any loaded model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from .model_identity import ModelIdentity
from .settings import InflationSettings
from .tuning import TuneSettings


@dataclass(frozen=True)
class TuneResult:
    """Weights that, applied to an inflated model with the same settings, give the tuned one.

    `temporal`: effective weights of the temporal modules, by block and layer; `query`: what was added to the q
    projections, by the UNet's weight name, with what earlier tunings of the same model added; all on the CPU.
    For the record: `losses` of every step, `frames` and `size` (height, width in latent pixels) of the clip, how it was
    trained, the model it was `base`d on, a small PNG `picture` of the clip, and the name of the `file` it came from.
    """

    settings: InflationSettings
    temporal: dict[str, torch.Tensor]
    query: dict[str, torch.Tensor]
    losses: list[float] = field(default_factory=list)
    frames: int = 0
    size: tuple[int, int] = (0, 0)
    training: TuneSettings | None = None
    base: ModelIdentity | None = None
    picture: bytes = b""
    file: str = ""

    def scaled(self, strength: float, query_strength: float | None = None) -> TuneResult:
        """The same at another strength: 1 is this one, 0 leaves nothing of it. What the temporal modules add to the
        features is multiplied by `strength`, what was added to the q projections by `query_strength`, which without
        it is the same."""
        query_strength = strength if query_strength is None else query_strength
        outputs = {name: weight * strength for name, weight in self.temporal.items() if ".to_out." in name}
        query = {name: weight * query_strength for name, weight in self.query.items()}
        return replace(self, temporal={**self.temporal, **outputs}, query=query)
