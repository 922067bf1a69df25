"""How well an autoencoder returns unseen pictures of the miniature's world."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch

from .scene import random_view, render


@torch.no_grad()
def reconstruction_psnr(
    encode: Callable[[torch.Tensor], torch.Tensor],
    decode: Callable[[torch.Tensor], torch.Tensor],
    shapes: float,
    count: int,
    seed: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """PSNR in dB of each of `count` unseen renders, the share `shapes` of which are shapes on patterns, and their
    latents `count 4 16 16`, both on the CPU. `encode`, `decode`: from pictures `b 3 128 128` in 0..1 to latents and
    back."""
    rng, psnr, latents = random.Random(seed), [], []
    for start in range(0, count, 16):
        pictures = render([random_view(rng, shapes=shapes) for _ in range(min(16, count - start))])
        z = encode(pictures)
        decoded = decode(z).float().cpu().clamp(0, 1)
        psnr.append(-10 * (decoded - pictures).square().mean(dim=(1, 2, 3)).log10())
        latents.append(z.float().cpu())
    return torch.cat(psnr), torch.cat(latents)
