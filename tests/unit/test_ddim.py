"""DDIM inversion: the grid, one step against the closed form in z-space, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ei2.ddim import ddim_sigmas, ddim_timesteps, sample_ddim_inversion

ALPHAS = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)  # SD's ᾱ
SCHEDULE = torch.from_numpy(np.sqrt((1 - ALPHAS) / ALPHAS))


def gaussian_denoiser(deviation: float = 1.0):
    """The exact denoiser of data that is normal with this standard deviation: linear in x."""
    return lambda x, sigma: x * deviation**2 / (deviation**2 + sigma.view(-1, 1, 1, 1) ** 2)


def euler_down(model, x: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    for start, end in zip(sigmas[:-1], sigmas[1:]):
        noise = (x - model(x, start * x.new_ones(len(x)))) / start
        x = x + (end - start) * noise
    return x


def clip(frames: int = 3) -> torch.Tensor:
    return torch.randn(frames, 4, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_fifty_steps_give_the_grid_of_stable_diffusion():
    assert ddim_timesteps(50).tolist() == list(range(1, 982, 20))


@pytest.mark.parametrize("steps, last", [(1, 1), (30, 958), (100, 991), (999, 999)])
def test_other_grids_stay_inside_the_schedule(steps, last):
    grid = ddim_timesteps(steps)
    assert len(grid) == steps and grid[0] == 1 and grid[-1] == last
    assert len(set(grid.diff().tolist())) <= 1


@pytest.mark.parametrize("steps", [0, -1, 1000])
def test_impossible_step_counts_are_refused(steps):
    with pytest.raises(ValueError, match=f"{steps} steps: choose between 1 and 999"):
        ddim_timesteps(steps)


def test_sigmas_are_those_of_the_grid_and_end_at_zero():
    sigmas = ddim_sigmas(50, SCHEDULE)
    expected = [float(np.sqrt((1 - ALPHAS[t]) / ALPHAS[t])) for t in range(981, 0, -20)] + [0.0]
    np.testing.assert_allclose(sigmas.numpy(), expected, rtol=1e-12)


def test_every_step_against_the_closed_form():
    """z' = √ᾱ' (z - √(1-ᾱ) ε) / √ᾱ + √(1-ᾱ') ε, with ε evaluated at z itself and the destination's timestep."""

    def noise(z: np.ndarray, t: int) -> np.ndarray:  # something that is not linear
        return np.tanh(1.7 * z + 0.3) * (0.5 + t / 1000) - 0.2 * np.roll(z, 1, axis=-1)

    def model(x, sigma):
        z = (x / (1 + sigma.view(-1, 1, 1, 1) ** 2).sqrt()).numpy()
        t = int((SCHEDULE - sigma[0]).abs().argmin())
        return x - sigma.view(-1, 1, 1, 1) * torch.from_numpy(noise(z, t))

    seen = []
    x = clip()
    result = sample_ddim_inversion(model, x, ddim_sigmas(10, SCHEDULE).flip(0), callback=seen.append)

    z, previous = x.numpy(), 1.0  # clean latents: ᾱ = 1
    for step, t in enumerate(range(1, 1000, 100)):
        epsilon, alpha = noise(z, t), ALPHAS[t]
        z = np.sqrt(alpha) * (z - np.sqrt(1 - previous) * epsilon) / np.sqrt(previous) + np.sqrt(1 - alpha) * epsilon
        previous = alpha
        np.testing.assert_allclose(seen[step]["x"].numpy() * np.sqrt(alpha), z, atol=1e-12)
    np.testing.assert_allclose(result.numpy() * np.sqrt(previous), z, atol=1e-12)


def test_the_refined_inversion_and_the_way_down_return_the_clip():
    x, sigmas, model = clip(), ddim_sigmas(50, SCHEDULE), gaussian_denoiser()
    noise = sample_ddim_inversion(model, x, sigmas.flip(0), refine=30)
    torch.testing.assert_close(euler_down(model, noise, sigmas), x, atol=1e-10, rtol=0)


def test_each_refinement_brings_it_closer():
    x, sigmas, model = clip(), ddim_sigmas(20, SCHEDULE), gaussian_denoiser(0.8)
    errors = []
    for refine in range(4):
        noise = sample_ddim_inversion(model, x, sigmas.flip(0), refine=refine)
        errors.append(float((euler_down(model, noise, sigmas) - x).abs().max()))
    assert errors[0] > 2 * errors[1] > 4 * errors[2] > 8 * errors[3]


def test_more_steps_invert_more_exactly():
    x, model = clip(), gaussian_denoiser(0.8)
    errors = []
    for steps in (10, 50, 250):
        sigmas = ddim_sigmas(steps, SCHEDULE)
        noise = sample_ddim_inversion(model, x, sigmas.flip(0))
        errors.append(float((euler_down(model, noise, sigmas) - x).abs().max()))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_the_noise_of_normal_data_has_the_right_spread():
    """Data with deviation s at σ has deviation √(s² + σ²): the inverted clip has to look like it."""
    x, sigmas = clip(200), ddim_sigmas(200, SCHEDULE)
    noise = sample_ddim_inversion(gaussian_denoiser(), x, sigmas.flip(0))
    assert float(noise.std() / (x.std() ** 2 + sigmas[0] ** 2).sqrt()) == pytest.approx(1, abs=0.05)


def test_callback_and_model_calls():
    """k-diffusion's form: one callback per step, 1 + refine calls, one σ per frame, extra arguments passed on."""
    calls, steps = [], []

    def model(x, sigma, flavour):
        calls.append((sigma.clone(), flavour))
        return torch.zeros_like(x)

    sigmas = ddim_sigmas(4, SCHEDULE).flip(0)
    sample_ddim_inversion(model, clip(), sigmas, {"flavour": "plain"}, steps.append, refine=2)
    assert [step["i"] for step in steps] == [0, 1, 2, 3]
    assert [float(step["sigma"]) for step in steps] == sigmas[1:].tolist()
    assert len(calls) == 4 * 3
    assert all(sigma.shape == (3,) and flavour == "plain" for sigma, flavour in calls)
