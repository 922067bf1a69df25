"""Draws pictures with a miniature, by DDIM and classifier-free guidance. Latents `z` are those the UNet sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from .architecture import PIXELS

TIMESTEPS = range(981, 0, -20)  # SD's 50 DDIM steps


class Miniature(Protocol):
    """What the evaluation needs of a model, however it was loaded."""

    signal: torch.Tensor  # cumulative signal share ᾱ per timestep, `1000`

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pictures `b 3 h w` in 0..1 -> latents `b 4 h/8 w/8`."""

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Latents `b 4 h w` -> pictures `b 3 8h 8w` in 0..1."""

    def context(self, prompts: list[str]) -> torch.Tensor:
        """Text embeddings, `b 77 c`."""

    def noise(self, x: torch.Tensor, t: int, context: torch.Tensor) -> torch.Tensor:
        """The noise the UNet sees in `x` `b 4 h w` at timestep `t`."""


def ddim(noise: Callable[[torch.Tensor, int], torch.Tensor], x: torch.Tensor, signal: torch.Tensor) -> torch.Tensor:
    """DDIM without added noise (Song et al., ICLR 2021) from `x` at timestep 981 down to a clean latent, `b 4 h w`.

    `noise(x, t)` predicts ε; `signal` is ᾱ per timestep.
    """
    steps = list(TIMESTEPS)
    for t, following in zip(steps, [*steps[1:], None]):
        a = signal[t]
        b = torch.ones(()) if following is None else signal[following]
        eps = noise(x, t)
        clean = (x - (1 - a).sqrt() * eps) / a.sqrt()
        x = b.sqrt() * clean + (1 - b).sqrt() * eps
    return x


@torch.no_grad()
def draw(miniature: Miniature, prompts: Sequence[str], guidance: float, generator: torch.Generator) -> torch.Tensor:
    """A picture per prompt, `b 3 128 128`, with classifier-free guidance against the empty prompt."""
    count = len(prompts)
    context = torch.cat([miniature.context(prompts), miniature.context([""]).expand(count, -1, -1)])

    def guided(x: torch.Tensor, t: int) -> torch.Tensor:
        conditional, unconditional = miniature.noise(torch.cat([x, x]), t, context).chunk(2)
        return unconditional + guidance * (conditional - unconditional)

    start = torch.randn(count, 4, PIXELS // 8, PIXELS // 8, generator=generator)
    return miniature.decode(ddim(guided, start, miniature.signal))
