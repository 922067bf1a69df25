"""What carrying a key frame needs from the host: its VAE, and its sampler for the last part of the steps."""

from __future__ import annotations

import comfy.model_management
import torch

from ..ei2.inverted_clip import Inversion
from ..ei2.key_frame import gain, shows_object
from ..ei2.masks import KeptOutside
from .inputs import check_video
from .memory import sampling_within_memory
from .sampling import sample, without_guidance, work_on

JUDGED = (0.7, 1.0)  # σ at which frames are compared: the object's outline is left, its details are not


def decoded(vae, latents: torch.Tensor, name: str) -> torch.Tensor:
    """The pictures `f 3 h w` in 0..1 of latents `f c h w`, in float32 on the CPU. `name`: of what they show. Raises
    `ValueError` if they are not finite, and for another kind of model's VAE."""
    if getattr(vae, "latent_channels", latents.shape[1]) != latents.shape[1]:
        raise ValueError(
            f"vae decodes latents of {vae.latent_channels} channels, but the edit's have {latents.shape[1]}: connect "
            "the VAE that encoded the clip."
        )
    return check_video(vae.decode(latents), name).movedim(-1, 1)


def encoded(vae, frames: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The latents `f c h w` of pictures `f 3 h w` in 0..1, in float32. Raises `ValueError` if they are not finite, or
    not of the shape of `like`."""
    latents = vae.encode(frames.movedim(1, -1)).float()
    if latents.shape != like.shape:
        raise ValueError(
            f"vae gives latents of the shape {list(latents.shape)}, but the edit's have {list(like.shape)}: connect "
            "the VAE that encoded the clip."
        )
    if not torch.isfinite(latents).all():
        raise ValueError("vae gave NaN or infinite latents: use another VAE, or start ComfyUI with --fp32-vae.")
    return latents


def best_frame(model, latents: torch.Tensor, regions: torch.Tensor, positive: list, negative: list) -> int:
    """The frame whose object best shows what the prompt says: of those that show it whole, or nearly, the one with the
    largest `gain` over the negative prompt.
    `latents`: the edit's, `f c h w` in the host's scale; `regions`: `f 1 h w` in 0..1, the object's, at their size."""
    clean, model = model.model.process_latent_in(latents), without_guidance(model)
    denoised = [_denoised(model, latents, prompt) for prompt in (positive, negative)]
    gains = sum(gain(*pair, clean, regions.to(clean)).cpu() for pair in zip(*denoised))
    return int(gains.masked_fill(~shows_object(regions), -torch.inf).argmax())


def _denoised(model, latents: torch.Tensor, prompt: list) -> list[torch.Tensor]:
    """The clip `f c h w` with the same noise in every frame, denoised at each of `JUDGED`, in the model's scale."""
    noise = torch.randn(latents.shape[1:], generator=torch.Generator().manual_seed(0))
    found = []

    @torch.no_grad()
    def look(guider, clip: torch.Tensor, sigmas: torch.Tensor, options: dict) -> None:
        for sigma in sigmas:
            comfy.model_management.throw_exception_if_processing_interrupted()
            denoised = guider(clip + sigma * noise.to(clip), sigma * clip.new_ones(len(clip)), **options)
            found.append(denoised.to(latents))

    with sampling_within_memory("comparison", model, latents, prompt):
        work_on(model, latents, {"positive": prompt}, torch.tensor(JUDGED), look)
    return found


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
    latents, free, noise, source = (x.to(edit) for x in (latents, free, inversion.noise, inversion.source))
    if denoise == 0:
        return torch.lerp(edit, latents, free)
    sigmas, steps = inversion.sigmas, len(inversion.sigmas) - 1
    first = steps - max(1, round(denoise * steps))
    to_model, to_host = model.model.process_latent_in, model.model.process_latent_out
    noise = (to_model(noise) - to_model(source)) / sigmas[0]
    noisy = torch.stack([to_model(edit) + sigma * noise for sigma in sigmas[first:]])
    start = to_host(torch.lerp(noisy[0], to_model(latents) + sigmas[first] * noise, free))
    return sample(model, start, positive, negative, cfg, sigmas[first:], KeptOutside(free, noisy))
