"""One-shot tuning: the diffusion loss on one clip (Tune-A-Video, Wu et al., ICCV 2023, which EI² keeps)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from random import Random

import numpy as np
import torch

from . import optimizers
from .windows import draw_window

Denoise = Callable[[torch.Tensor, torch.Tensor, slice], torch.Tensor]
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}
MEASURED = (2, 12, 50, 200, 500, 900)  # timesteps of 1000; the loss changes fastest where there is little noise


@dataclass(frozen=True)
class TuneSettings:
    """Training settings. The defaults are the source's."""

    steps: int = 500
    learning_rate: float = 3e-5
    seed: int = 0
    precision: str = "fp32"  # of the UNet's arithmetic: fp32, bf16 or fp16; trained parameters and loss are float32
    weight_decay: float = 1e-2
    gradient_clip: float = 1.0
    window_frames: int = 0  # frames per step, from a window anywhere in the clip; 0: the whole clip
    optimizer: str = optimizers.ADAMW


@dataclass(frozen=True)
class TrainingState:
    """The state after a step; a run resumed from it gives the same result as an uninterrupted one. The tensors are
    those of the running training: write or copy them before the next step.

    `losses` of the steps so far; `moments`: the optimizer's state per parameter; `random`: the state of the noise
    generator; `scaler`: the state of fp16's gradient scaler; `weights`: all trained tensors by name,
    including the singular vectors of the spectral norms, which the caller of `tune` fills in and restores;
    `file`: the name of the file it came from.
    """

    losses: list[float]
    moments: list[dict[str, torch.Tensor]]
    random: torch.Tensor
    scaler: dict[str, float]
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    file: str = ""


class NonFiniteLoss(RuntimeError):
    """The loss or the weights became NaN or infinite. Nothing of the tuning is kept."""


def diffusion_loss(denoised: torch.Tensor, clean: torch.Tensor, sigma: torch.Tensor, prediction: str) -> torch.Tensor:
    """Mean squared error of the prediction, in float32.

    `denoised`, `clean`: `f c h w` in the model's latent scale. For the same noisy latents, the error
    of ε is the error of the denoised latents divided by σ; the error of v is that error divided by σ
    / √(1 + σ²). `prediction`: `eps` or `v`.
    """
    scale = sigma if prediction == "eps" else sigma / (1 + sigma**2).sqrt()
    return ((denoised.float() - clean.float()) / scale).square().mean()


@dataclass(frozen=True)
class Step:
    """One finished training step. `number` counts from 1; `timestep`: its noise level, an index into the schedule;
    `loss` is a tensor, because reading it waits for the device; `window`: the frames of the step; `state()`: the state
    to resume from later.
    """

    number: int
    timestep: int
    loss: torch.Tensor
    window: slice
    state: Callable[[], TrainingState]


def tune(
    denoise: Denoise,
    clean: torch.Tensor,
    schedule: torch.Tensor,
    parameters: Iterable[torch.nn.Parameter],
    settings: TuneSettings,
    prediction: str = "eps",
    start: TrainingState | None = None,
    enough: Callable[[int], bool] | None = None,
) -> Iterator[Step]:
    """Trains `parameters` so that `denoise` learns the clip; yields every finished step.

    `denoise(x, sigma, window)` denoises the latents `f c h w` (in σ-space) of a window of the clip's frames, with one σ
    per frame `f`; `clean`: the clip's latents; `schedule`: σ of every training timestep. Each step draws one timestep
    for the whole video, uniformly, and independent noise per frame; with `window_frames` also a window. `start`: the
    state of an earlier run, whose weights `parameters` already hold; its steps count. `enough(done)`: asked before
    each step whether to end here, see `early_stop`; without it all steps are taken.

    Raises `NonFiniteLoss` if the loss or the weights are not finite; the parameters are then useless. The loop checks
    each loss one step late, and the weights at the end.
    """
    parameters, device = list(parameters), clean.device
    optimizer = optimizers.make(settings.optimizer, parameters, settings.learning_rate, settings.weight_decay)
    scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16")
    generator = torch.Generator("cpu").manual_seed(settings.seed)  # the same on every device
    draws = Random(settings.seed)  # a separate generator, so the noise does not depend on window_frames
    length = settings.window_frames or len(clean)
    losses: list[torch.Tensor] = []

    def check() -> None:
        if losses:
            _check_loss(losses[-1], len(losses), settings)
        _check_weights(parameters, len(losses), settings)

    def state() -> TrainingState:
        check()
        moments = [dict(optimizer.state[parameter]) for parameter in parameters]
        return TrainingState(torch.stack(losses).tolist(), moments, generator.get_state(), scaler.state_dict())

    if start:
        losses = [torch.tensor(loss, device=device) for loss in start.losses]
        for parameter, moments in zip(parameters, start.moments, strict=True):  # `load_state_dict` would change types
            optimizer.state[parameter] = {key: value.to(parameter.device, copy=True) for key, value in moments.items()}
        generator.set_state(start.random)
        scaler.load_state_dict(start.scaler)
        for _ in losses:
            draw_window(len(clean), length, draws)
    while len(losses) < settings.steps and not (enough and enough(len(losses))):
        timestep = torch.randint(len(schedule), (1,), generator=generator).item()
        window = draw_window(len(clean), length, draws)
        seen = clean[window]
        noise = torch.randn(seen.shape, generator=generator, pin_memory=device.type == "cuda")
        noise = noise.to(seen, non_blocking=device.type == "cuda")  # elsewhere it could be freed before it is read
        sigma = schedule[timestep].to(seen)
        with autocast(settings.precision, device.type):
            denoised = denoise(seen + sigma * noise, sigma.expand(len(seen)), window)
        loss = diffusion_loss(denoised, seen, sigma, prediction)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(parameters, settings.gradient_clip)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        if losses:
            _check_loss(losses[-1], len(losses), settings)
        losses.append(loss.detach())
        yield Step(len(losses), timestep, losses[-1], window, state)
    check()


def losses_by_timestep(
    denoise: Denoise, clean: torch.Tensor, schedule: torch.Tensor, window: slice, prediction: str
) -> Iterator[tuple[int, float]]:
    """The model's loss at each of `MEASURED` timesteps, with the same noise every time; arguments as in `tune`.

    A step's loss depends on its noise level far more than on what was learned. Relative to the loss of the model before
    the tuning (`at_timestep`), it shows the learning.
    """
    for timestep in MEASURED:
        sigma = schedule[timestep].to(clean)
        denoised = from_noise(denoise, clean, window, sigma)
        yield timestep, diffusion_loss(denoised, clean[window], sigma, prediction).item()


def from_noise(denoise: Denoise, clean: torch.Tensor, window: slice, sigma: torch.Tensor) -> torch.Tensor:
    """A window of the clip, denoised by the model from the same noise each time; arguments as in `tune`."""
    clean = clean[window]
    noise = torch.randn(clean.shape, generator=torch.Generator("cpu").manual_seed(0)).to(clean)
    return denoise(clean + sigma * noise, sigma.expand(len(clean)), window)


def at_timestep(timestep: int, losses: dict[int, float]) -> float:
    """The loss at any timestep, interpolated logarithmically between those of `losses_by_timestep`."""
    return float(np.exp(np.interp(timestep, list(losses), np.log(list(losses.values())))))


def autocast(precision: str, device: str) -> AbstractContextManager:
    """The context in which the model computes in `precision`: fp32, bf16 or fp16. `device`: the device's type."""
    low = PRECISIONS.get(precision)
    return torch.autocast(device, low) if low else nullcontext()


def _check_loss(loss: torch.Tensor, step: int, settings: TuneSettings) -> None:
    value = loss.item()
    if not math.isfinite(value):
        raise NonFiniteLoss(_breakdown(f"loss became {value}", step, settings))


def _check_weights(parameters: list[torch.nn.Parameter], step: int, settings: TuneSettings) -> None:
    if not all(torch.isfinite(parameter).all() for parameter in parameters):
        raise NonFiniteLoss(_breakdown("weights became infinite or NaN", step, settings))


def _breakdown(what: str, step: int, settings: TuneSettings) -> str:
    return (
        f"The {what} at step {step} of {settings.steps} and the tuning was stopped; the model is unchanged. "
        f"Lower the learning rate (now {settings.learning_rate:g}) or choose precision fp32 (now "
        f"{settings.precision}); if it happens at step 1, look for black or broken frames."
    )
