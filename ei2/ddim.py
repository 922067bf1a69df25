"""DDIM inversion and its timestep grid (Song et al., ICLR 2021), in σ-space.

With x = z / √ᾱ and σ = √((1 - ᾱ) / ᾱ), the deterministic DDIM step is an Euler step: x(σ') = x(σ) + (σ' - σ) ε.
"""

from __future__ import annotations

import torch


def ddim_timesteps(steps: int, train_steps: int = 1000) -> torch.Tensor:
    """The grid that diffusers calls "leading", ascending: 50 steps of 1000 give 1, 21, …, 981. Where the steps do not
    divide 1000 it ends earlier: 201 give 1, 5, …, 801.

    Raises `ValueError` unless 1 <= steps < train_steps.
    """
    if not 1 <= steps < train_steps:
        raise ValueError(f"{steps} steps: choose between 1 and {train_steps - 1}.")
    return torch.arange(steps) * (train_steps // steps) + 1


def ddim_sigmas(steps: int, schedule: torch.Tensor) -> torch.Tensor:
    """The grid's sigmas, descending, then 0: `steps + 1` values. `schedule`: σ
    of every training timestep, ascending."""
    grid = schedule[ddim_timesteps(steps, len(schedule))]
    return torch.cat([grid.flip(0), grid.new_zeros(1)])


def sample_ddim(model, x, sigmas, extra_args=None, callback=None, disable=None, after_step=lambda i, x: x):
    """Denoises latents over descending `sigmas`, in the form of k-diffusion's samplers.

    `after_step(i, x)` returns the latents to continue with after step i.
    """
    per_frame = x.new_ones(x.shape[0])
    for i, (start, end) in enumerate(zip(sigmas[:-1], sigmas[1:])):
        denoised = model(x, start * per_frame, **(extra_args or {}))
        if callback is not None:
            callback({"x": x, "i": i, "sigma": start, "sigma_hat": start, "denoised": denoised})
        x = after_step(i, x + (x - denoised) / start * (end - start))
    return x


def sample_ddim_inversion(model, x, sigmas, extra_args=None, callback=None, disable=None, refine: int = 0):
    """Inverts clean latents `f c h w` to noise, over ascending `sigmas` that start at 0.

    It has the form of k-diffusion's samplers: `model(x, sigma, **extra_args)` returns the denoised latents. As in
    Tune-A-Video, ε is evaluated at the destination timestep, with the latents of the step's origin rescaled to it
    (equal ᾱ-scaling), so there is no division by σ = 0. `refine` repeats each evaluation at the step's own result: a
    fixed-point iteration that makes sampling retrace the inversion (our choice; off by default).
    """
    extra_args = extra_args or {}
    per_frame = x.new_ones(x.shape[0])
    for i, (start, end) in enumerate(zip(sigmas[:-1], sigmas[1:])):
        origin = x
        probe = origin * ((1 + end**2) / (1 + start**2)).sqrt()
        for _ in range(1 + refine):
            denoised = model(probe, end * per_frame, **extra_args)
            noise = (probe - denoised) / end
            probe = origin + (end - start) * noise
        x = probe
        if callback is not None:
            callback({"x": x, "i": i, "sigma": end, "sigma_hat": end, "denoised": denoised})
    return x
