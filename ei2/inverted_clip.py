"""The value that travels from EI2 Invert to EI2 Edit Sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Inversion:
    """A clip turned to noise.

    `noise`, `source`: `f c h w` in the host's latent scale; `sigmas`: descending, to sample with. With null-text
    optimisation also `unconditional`: `steps l c`, each sampling step's unconditional embedding, float32 on the CPU;
    `empty`: `1 l c`, the empty prompt they started from; `null_cfg`: the guidance they were made for. `trajectory`:
    `steps+1 f c h w`, what the inversion passed, in σ-space from noise to clean, one per σ, float32 on the CPU, if it
    was kept: a mask at the edit needs it.
    """

    noise: torch.Tensor
    source: torch.Tensor
    sigmas: torch.Tensor
    unconditional: torch.Tensor | None = None
    empty: torch.Tensor | None = None
    null_cfg: float = 7.5
    trajectory: torch.Tensor | None = None

    @property
    def frames(self) -> int:
        return self.noise.shape[0]
