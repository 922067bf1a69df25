"""The grid and the inversion against the DDIM schedulers of `diffusers`, which share no code with ours.

Theirs work in z-space, ours in σ-space: x = z / √ᾱ, σ = √((1 - ᾱ) / ᾱ). The scheduler's ᾱ is made float64 and our σ
are computed from it, so that only the formulas can differ. How the two are set to mean the same:

* Clean end: ours is σ = 0, as with all samplers of ComfyUI, which is ᾱ = 1 (`set_alpha_to_one=True`). The original SD
  and Tune-A-Video end at the first training timestep instead, ᾱ₀ = 0.99915 or σ = 0.029 (`set_alpha_to_one=False`).
* Inversion: `DDIMInverseScheduler.step(output, t, z)` of today's versions carries z from t - 1000 // steps *to* t, so
  `output` = network(z, t) is evaluated at the destination's timestep: Tune-A-Video's arrangement, and ours.
* Inversion with v: theirs reads v with the origin's ᾱ though it was predicted for the destination's; ours reads it with
  the ᾱ it was predicted for. The two approach each other as the steps get smaller.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler

from ei2.ddim import ddim_sigmas, ddim_timesteps, sample_ddim_inversion

from . import diffusers_scheduler

KINDS = ("epsilon", "v_prediction")


# in float64, so that only the formulas can differ
scheduler = partial(diffusers_scheduler.scheduler, dtype=torch.float64)
ALPHAS = scheduler(DDIMScheduler, 1).alphas_cumprod
SCHEDULE = ((1 - ALPHAS) / ALPHAS).sqrt()


def network(z: torch.Tensor, t: int) -> torch.Tensor:
    """What a UNet would return, ε or v; far from linear."""
    return torch.tanh(1.7 * z + 0.3) * (0.5 + t / 1000) - 0.2 * z.roll(1, -1)


def read_as(prediction: str, z, t: int, output) -> tuple[torch.Tensor, torch.Tensor]:
    """The clean latents and ε in the output of a network at `t`, as `DDIMScheduler` understands it."""
    step = scheduler(DDIMScheduler, 1, prediction).step(output, t, z)
    clean = step.pred_original_sample
    return clean, (z - ALPHAS[t].sqrt() * clean) / (1 - ALPHAS[t]).sqrt()


def denoiser(prediction: str):
    """The network in the form k-diffusion's samplers want: x, σ -> denoised x."""

    def model(x, sigma):
        t = int((SCHEDULE - sigma[0]).abs().argmin())
        z = x * ALPHAS[t].sqrt()
        return read_as(prediction, z, t, network(z, t))[0]

    return model


def clip(frames: int = 3) -> torch.Tensor:
    return torch.randn(frames, 4, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def invert(steps: int, prediction: str, refine: int = 0, start: float = 0.0) -> torch.Tensor:
    """Our inversion of the clip, in z-space."""
    sigmas = ddim_sigmas(steps, SCHEDULE).flip(0)
    sigmas[0] = start
    noise = sample_ddim_inversion(denoiser(prediction), clip(), sigmas, refine=refine)
    return noise * ALPHAS[ddim_timesteps(steps)[-1]].sqrt()


def invert_by_diffusers(steps: int, prediction: str, read_v_at_destination: bool = True) -> torch.Tensor:
    """Their inversion of the clip. `read_v_at_destination`: the scheduler is given ε instead of v."""
    as_noise = prediction == "epsilon" or read_v_at_destination
    inverse = scheduler(DDIMInverseScheduler, steps, "epsilon" if as_noise else prediction)
    z = clip()
    for t in inverse.timesteps.tolist():
        output = network(z, t)
        z = inverse.step(read_as(prediction, z, t, output)[1] if as_noise else output, t, z).prev_sample
    return z


@pytest.mark.parametrize("steps", [1, 2, 7, 10, 20, 25, 30, 50, 75, 100, 333, 500, 501, 999])
def test_the_grid_is_that_of_diffusers(steps):
    """Also where the steps do not divide 1000."""
    assert ddim_timesteps(steps).tolist() == scheduler(DDIMInverseScheduler, steps).timesteps.tolist()
    assert ddim_timesteps(steps).flip(0).tolist() == scheduler(DDIMScheduler, steps).timesteps.tolist()


@pytest.mark.parametrize("steps", [1, 10, 30, 50, 500])
def test_sigmas_are_those_of_diffusers(steps):
    """From ᾱ of our own in float64, so these are compared as well. Above 500 steps theirs always ends at ᾱ₀."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alphas = (1 - betas).cumprod(0)
    down = scheduler(DDIMScheduler, steps)
    expected = torch.tensor([*(ALPHAS[t] for t in down.timesteps), down.final_alpha_cumprod], dtype=torch.float64)
    sigmas = ddim_sigmas(steps, ((1 - alphas) / alphas).sqrt())
    torch.testing.assert_close(sigmas, ((1 - expected) / expected).sqrt(), rtol=2e-5, atol=0)
    assert sigmas[-1] == 0


@pytest.mark.parametrize("steps", [10, 30, 50])
@pytest.mark.parametrize("prediction", KINDS)
def test_the_inversion_is_that_of_diffusers(prediction, steps):
    expected = invert_by_diffusers(steps, prediction)
    torch.testing.assert_close(invert(steps, prediction), expected, rtol=0, atol=1e-10)


def test_the_inversion_from_the_first_timestep_is_that_of_diffusers():
    """SD's own clean end: the same formula from another σ."""
    inverse = scheduler(DDIMInverseScheduler, 50, set_alpha_to_one=False)
    z = clip() * ALPHAS[0].sqrt()
    for t in inverse.timesteps.tolist():
        z = inverse.step(network(z, t), t, z).prev_sample
    # the scheduler's first ᾱ stays float32
    torch.testing.assert_close(invert(50, "epsilon", start=float(SCHEDULE[0])), z, rtol=0, atol=1e-6)


def test_v_read_at_the_origin_is_the_same_in_the_limit():
    """What `DDIMInverseScheduler` makes of v by itself differs from ours by an error of first order in the steps."""
    gaps = [
        float((invert(steps, "v_prediction") - invert_by_diffusers(steps, "v_prediction", False)).abs().max())
        for steps in (50, 100, 200, 400)
    ]
    assert all(1.7 < coarse / fine < 2.5 for coarse, fine in zip(gaps, gaps[1:])), gaps


@pytest.mark.parametrize("prediction", KINDS)
def test_sampling_by_diffusers_returns_the_refined_inversion(prediction):
    """A refined step is the exact inverse of `DDIMScheduler.step`, so the way down is the way up, step by step."""
    down = scheduler(DDIMScheduler, 50, prediction)
    z = invert(50, prediction, refine=40)
    for t in down.timesteps.tolist():
        z = down.step(network(z, t), t, z).prev_sample
    torch.testing.assert_close(z, clip(), rtol=0, atol=1e-9)
