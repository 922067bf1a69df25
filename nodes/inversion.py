"""The value that travels from EI2 Invert to EI2 Edit Sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Inversion:
    """A clip turned to noise.

    `noise`, `source`: `f c h w` in the host's latent scale; `sigmas`: descending, to sample with.
    """

    noise: torch.Tensor
    source: torch.Tensor
    sigmas: torch.Tensor

    @property
    def frames(self) -> int:
        return self.noise.shape[0]
