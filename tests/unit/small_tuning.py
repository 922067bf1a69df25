"""A tuning small enough for the unit tests: a denoiser of two convolutions, a clip and the loop."""

from __future__ import annotations

import numpy as np
import torch

from ei2.tuning import TuneSettings
from ei2.tuning import tune as tuning_steps

SCHEDULE = torch.from_numpy(np.sqrt(1 / np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2) - 1)).float()


class Denoiser(torch.nn.Module):
    """Predicts ε from the noisy latents by two convolutions."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(4, 16, 3, padding=1), torch.nn.SiLU(), torch.nn.Conv2d(16, 4, 3, padding=1)
        )

    def forward(self, x, sigma):
        sigma = sigma.view(-1, 1, 1, 1)
        return x - sigma * self.layers(x / (1 + sigma**2).sqrt())


def clip() -> torch.Tensor:
    return torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(0))


def tune(
    denoise,
    clean,
    schedule,
    parameters,
    settings,
    prediction="eps",
    start=None,
    on_step=None,
    on_state=None,
    state_every=0,
    on_window=None,
):
    """Every loss of a tuning, with what its steps give handed to functions."""
    losses = list(start.losses) if start else []

    def denoise_window(x, sigma, window):
        if on_window:
            on_window(window)
        return denoise(x, sigma)

    for step in tuning_steps(denoise_window, clean, schedule, parameters, settings, prediction, start):
        if state_every and (step.number % state_every == 0 or step.number == settings.steps):
            on_state(step.state())
        losses.append(float(step.loss))
        if on_step:
            on_step(step.number, step.loss)
    return losses


def run(settings: TuneSettings, **options):
    denoiser = Denoiser()
    losses = tune(denoiser, clip(), SCHEDULE, denoiser.parameters(), settings, **options)
    return denoiser, losses
