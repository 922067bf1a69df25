"""The DDIM schedulers of `diffusers` with Stable Diffusion's settings."""

from __future__ import annotations

import torch


def scheduler(
    kind, steps: int, prediction: str = "epsilon", set_alpha_to_one: bool = True, dtype: torch.dtype = torch.float32
):
    """A scheduler of class `kind`, by default with the host's clean end, ᾱ = 1. `dtype`: of its ᾱ."""
    result = kind(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        steps_offset=1,
        timestep_spacing="leading",
        set_alpha_to_one=set_alpha_to_one,
        prediction_type=prediction,
    )
    result.alphas_cumprod = result.alphas_cumprod.to(dtype)
    result.set_timesteps(steps)
    return result
