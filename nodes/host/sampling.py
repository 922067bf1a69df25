"""Inversion and sampling through the host's guider, with its previews, progress and cancelling."""

from __future__ import annotations

import comfy.model_management
import comfy.samplers
import latent_preview
import torch

from ...ei2.ddim import ddim_sigmas, sample_ddim_inversion
from .unet import require_unet, sigma_schedule


def invert(model, latents: torch.Tensor, positive: list, steps: int, refine: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise latents `f c h w` (the host's latent scale) whose deterministic sampling returns `latents`, and the
    descending sigmas to sample with, `steps + 1`. Raises `ValueError` for models that cannot be inverted."""
    require_unet(model)
    sigmas = ddim_sigmas(steps, sigma_schedule(model))
    inverter = comfy.samplers.KSAMPLER(sample_ddim_inversion, extra_options={"refine": refine})
    return run(model, latents, positive, None, 1.0, inverter, sigmas.flip(0)), sigmas


def sample(
    model, noise: torch.Tensor, positive: list, negative: list, cfg: float, sigmas: torch.Tensor
) -> torch.Tensor:
    """Deterministic DDIM from inverted noise `f c h w`, with classifier-free guidance; no noise is added."""
    return run(model, noise, positive, negative, cfg, comfy.samplers.sampler_object("ddim"), sigmas)


def run(model, start: torch.Tensor, positive, negative, cfg: float, sampler, sigmas: torch.Tensor) -> torch.Tensor:
    """The host's guider on `start` without added noise, on its device of intermediate results. Raises `ValueError`
    when the result is not finite."""
    guider = comfy.samplers.CFGGuider(model)
    guider.inner_set_conds({"positive": positive} if negative is None else {"positive": positive, "negative": negative})
    guider.set_cfg(cfg)
    callback = latent_preview.prepare_callback(model, len(sigmas) - 1)
    samples = guider.sample(torch.zeros_like(start), start, sampler, sigmas, callback=callback, seed=0)
    if not torch.isfinite(samples).all():
        raise ValueError(
            "The model gave NaN or infinite values: if it was tuned, tune again with a lower learning rate, otherwise "
            "start ComfyUI with --fp32-unet or use another model."
        )
    return samples.to(comfy.model_management.intermediate_device())
