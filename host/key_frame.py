"""What carrying a key frame needs from the host: its VAE, and its sampler for the last part of the steps."""

from __future__ import annotations

import torch

from ..ei2.inverted_clip import Inversion
from ..ei2.masks import KeptOutside
from .sampling import sample


def decoded(vae, latents: torch.Tensor) -> torch.Tensor:
    """The pictures `f 3 h w` in 0..1 of latents `f c h w`, in float32 on the CPU."""
    return vae.decode(latents)[..., :3].float().cpu().movedim(-1, 1).clamp(0, 1)


def encoded(vae, frames: torch.Tensor) -> torch.Tensor:
    """The latents `f c h w` of pictures `f 3 h w` in 0..1, in float32."""
    return vae.encode(frames.movedim(1, -1)).float()


def sample_again(
    model,
    inversion: Inversion,
    latents: torch.Tensor,
    edit: torch.Tensor,
    free: torch.Tensor,
    positive: list,
    negative: list,
    cfg: float,
    denoise: float,
) -> torch.Tensor:
    """Clean `latents` `f c h w`, noised with the inversion's own noise and sampled for the last of its steps.

    `edit`: latents that the result equals where `free` `f 1 h w` in 0..1 is 0, at the latents' size; `denoise`: the
    share of the steps, 0..1. All latents are in the host's scale.
    """
    sigmas = inversion.sigmas
    first = len(sigmas) - 1 - round(denoise * (len(sigmas) - 1))
    if first == len(sigmas) - 1:
        return torch.lerp(edit, latents, free)
    to_model, to_host = model.model.process_latent_in, model.model.process_latent_out
    noise = (to_model(inversion.noise.float()) - to_model(inversion.source.float())) / sigmas[0]
    noisy = torch.stack([to_model(edit) + sigma * noise for sigma in sigmas[first:]])
    start = to_host(torch.lerp(noisy[0], to_model(latents) + sigmas[first] * noise, free))
    return sample(model, start, positive, negative, cfg, sigmas[first:], KeptOutside(free, noisy))
