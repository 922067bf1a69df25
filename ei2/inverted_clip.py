"""The value passed from EI2 Invert to EI2 Edit Sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Inversion:
    """A clip inverted to noise.

    `noise`, `source`: `f c h w` in the host's latent scale; `sigmas`: descending, for sampling. With null-text
    optimisation also `unconditional`: `steps l c`, the unconditional embedding of each sampling step, float32 on the
    CPU; `empty`: `1 l c`, the empty prompt they started from; `null_cfg`: the guidance they were optimised for.
    `trajectory`, if it was kept: `steps+1 f c h w`, the latents at each σ in σ-space, from noise to clean, float32 on
    the CPU. An edit with a mask needs it. `latent_scale`: the factor of the latents' scale, which differs between
    families of models; None if unknown.
    """

    noise: torch.Tensor
    source: torch.Tensor
    sigmas: torch.Tensor
    unconditional: torch.Tensor | None = None
    empty: torch.Tensor | None = None
    null_cfg: float = 7.5
    trajectory: torch.Tensor | None = None
    latent_scale: float | None = None

    @property
    def frames(self) -> int:
        return self.noise.shape[0]
