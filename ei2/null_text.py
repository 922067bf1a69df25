"""Null-text optimisation: unconditional embeddings with which guided sampling returns the clip (Mokady et al., CVPR
2023), shared by all frames as in Video-P2P (Liu et al., CVPR 2024).

In σ-space, x = z / √ᾱ and ᾱ = 1 / (1 + σ²). The DDIM step is x' = x + (σ' - σ) ε, and an error of z'
is the error of x' divided by √(1 + σ'²).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from .tuning import NonFiniteLoss

# (latents `f c h w`, σ, text `1 l c` or None for the source prompt) -> ε `f c h w`
PredictNoise = Callable[[torch.Tensor, torch.Tensor, "torch.Tensor | None"], torch.Tensor]

SOURCE_STEPS = 50  # the published learning rate and early stop are for 50 steps
LEARNING_RATE = 1e-2
LEARNING_RATE_FALL = 1 / 100  # per step, of the first rate
EARLY_STOP = 1e-5
EARLY_STOP_RISE = 2e-5  # per step


@dataclass(frozen=True)
class NullTextSettings:
    """`inner_steps`: the maximum number of optimiser steps per sampling step (10 in Video-P2P, 1 in
    Vid2Vid-zero); `guidance`: the edit's."""

    inner_steps: int = 10
    guidance: float = 7.5


def optimize_unconditional(
    predict: PredictNoise,
    trajectory: Sequence[torch.Tensor],
    sigmas: torch.Tensor,
    start: torch.Tensor,
    settings: NullTextSettings,
    on_step: Callable[[int, float], None] = lambda done, loss: None,
    autocast: Callable[[], AbstractContextManager] = nullcontext,
) -> tuple[torch.Tensor, list[float]]:
    """Returns one unconditional embedding per sampling step, `steps l c` in
    float32 on the CPU, and each step's last loss.

    `trajectory`: the inverted latents `f c h w` in σ-space, from noise to clean, one per σ, on any device; `sigmas`:
    descending, `steps + 1`, ending in 0; `start`: `1 l c`, the embedding of the empty prompt. Each step starts from the
    previous step's embedding, and the latents advance with its result. Only the embedding gets gradients.
    `on_step(done, loss)` is called after every optimiser step, with `done` out of `steps · inner_steps` (early stops
    jump ahead); it may raise to cancel. `autocast` creates the context the model runs in.

    Raises `ValueError` if trajectory and sigmas differ in length or `inner_steps` is below 1, and `NonFiniteLoss` if
    the loss or the embedding is NaN or infinite.
    """
    if len(trajectory) != len(sigmas):
        raise ValueError(f"{len(trajectory)} latents do not fit {len(sigmas)} noise levels.")
    if settings.inner_steps < 1:
        raise ValueError(f"inner_steps is {settings.inner_steps}: it must be 1 or more.")
    steps = len(sigmas) - 1
    latents, embedding = trajectory[0].to(sigmas.device), start.detach().to(sigmas.device, torch.float32)
    embeddings, losses = [], []
    for i in range(steps):
        target = trajectory[i + 1].to(latents)
        with torch.no_grad(), autocast():
            conditional = predict(latents, sigmas[i], None).float()

        def advance():
            with autocast():
                unconditional = predict(latents, sigmas[i], embedding)
            noise = unconditional.float() + settings.guidance * (conditional - unconditional.float())
            return latents + (sigmas[i + 1] - sigmas[i]) * noise

        embedding = embedding.clone().requires_grad_()
        optimizer = torch.optim.Adam([embedding], lr=learning_rate(i, steps))
        for inner in range(settings.inner_steps):
            loss = ((advance() - target) ** 2).mean() / (1 + sigmas[i + 1] ** 2)
            value = loss.item()
            if not math.isfinite(value):
                raise NonFiniteLoss(_breakdown(f"loss became {value}", i, steps))
            (embedding.grad,) = torch.autograd.grad(loss, [embedding])
            optimizer.step()
            last = inner + 1 == settings.inner_steps or value < early_stop(i, steps)
            on_step((i + 1 if last else i) * settings.inner_steps + (0 if last else inner + 1), value)
            if last:
                break
        embedding = embedding.detach()
        if not torch.isfinite(embedding).all():
            raise NonFiniteLoss(_breakdown("embedding became infinite or NaN", i, steps))
        with torch.no_grad():
            latents = advance()
        embeddings.append(embedding.cpu())
        losses.append(value)
    return torch.cat(embeddings), losses


def learning_rate(step: int, steps: int) -> float:
    """Adam's learning rate at one sampling step: 1e-2 · (1 - i / 100) for 50 steps.

    For other numbers of steps (our choice), i is scaled to 50 steps, because the formula becomes negative above 100,
    and the rate is multiplied by 50 / steps. Adam moves a parameter by about its rate whatever the loss, and an
    embedding is passed from step to step, so fewer steps would not get as far: on one of the miniature's clips, 12
    steps gained 1 dB without this factor and 12 dB with it.
    """
    published = LEARNING_RATE * (1 - LEARNING_RATE_FALL * step * SOURCE_STEPS / steps)
    return published * SOURCE_STEPS / steps


def early_stop(step: int, steps: int) -> float:
    """The loss below which a sampling step ends: 1e-5 + 2e-5 · i for 50 steps; for other numbers, i is scaled to 50."""
    return EARLY_STOP + EARLY_STOP_RISE * step * SOURCE_STEPS / steps


def step_ranges(timesteps: Sequence[float], last: float) -> list[tuple[float, float]]:
    """The range in which each step's embedding is used, in fractions of the sampling (0 is noise, 1 is
    clean). Ranges meet half-way between descending `timesteps`; the first begins at 0, the last ends at 1.
    `last`: the noisiest timestep of the schedule."""
    between = [1 - (a + b) / 2 / last for a, b in zip(timesteps[:-1], timesteps[1:])]
    return list(zip([0.0, *between], [*between, 1.0]))


def _breakdown(what: str, step: int, steps: int) -> str:
    return (
        f"The {what} in null-text optimisation at step {step + 1} of {steps}; nothing of it is kept. Choose a lower "
        "null_cfg, or a model that gives finite pictures at this guidance."
    )
