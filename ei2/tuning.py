"""One-shot tuning: the diffusion loss on one clip (Tune-A-Video, Wu et al., ICCV 2023, which EI² keeps)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass

import torch

Denoise = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class TuneSettings:
    """How the clip is learned. The defaults are the source's."""

    steps: int = 500
    learning_rate: float = 3e-5
    seed: int = 0
    precision: str = "fp32"  # of the UNet's arithmetic: fp32, bf16 or fp16; trainables and loss are float32
    weight_decay: float = 1e-2
    gradient_clip: float = 1.0


class NonFiniteLoss(RuntimeError):
    """The loss or the weights became NaN or infinite: nothing of the tuning is kept."""


def diffusion_loss(denoised: torch.Tensor, clean: torch.Tensor, sigma: torch.Tensor, prediction: str) -> torch.Tensor:
    """Mean squared error of the prediction, in float32.

    `denoised`, `clean`: `f c h w` in the model's latent scale. At given noisy latents the error of ε is the error of
    the denoised latents divided by σ, that of v divided by σ / √(1 + σ²). `prediction`: `eps` or `v`.
    """
    scale = sigma if prediction == "eps" else sigma / (1 + sigma**2).sqrt()
    return ((denoised.float() - clean.float()) / scale).square().mean()


def tune(
    denoise: Denoise,
    clean: torch.Tensor,
    schedule: torch.Tensor,
    parameters: Iterable[torch.nn.Parameter],
    settings: TuneSettings,
    prediction: str = "eps",
    on_step: Callable[[int, torch.Tensor], None] = lambda step, loss: None,
) -> list[float]:
    """Trains `parameters` so that `denoise` knows the clip; returns the loss of every step.

    `denoise(x, sigma)` maps noisy latents `f c h w` in σ-space and one σ per frame `f` to denoised ones; `clean`:
    the clip's latents; `schedule`: σ of every training timestep. Each step draws one timestep for the whole video,
    uniformly, and independent noise per frame. `on_step` is called after every step and may raise to cancel; it gets
    the loss as a tensor, since reading it waits for the device. The loop itself reads each loss one step late.

    Raises `NonFiniteLoss` when loss or weights are no numbers; what the parameters hold is then to be thrown away.
    """
    parameters = list(parameters)
    device = clean.device
    optimizer = torch.optim.AdamW(
        parameters, lr=settings.learning_rate, betas=(0.9, 0.999), weight_decay=settings.weight_decay, fused=True
    )
    low_precision = PRECISIONS.get(settings.precision)
    autocast = lambda: torch.autocast(device.type, low_precision) if low_precision else nullcontext()
    scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16")
    generator = torch.Generator("cpu").manual_seed(settings.seed)  # the same on every device

    losses = []
    for step in range(settings.steps):
        timestep = torch.randint(len(schedule), (1,), generator=generator).item()
        noise = torch.randn(clean.shape, generator=generator, pin_memory=device.type == "cuda")
        noise = noise.to(clean, non_blocking=True)
        sigma = schedule[timestep].to(clean)
        with autocast():
            denoised = denoise(clean + sigma * noise, sigma.expand(clean.shape[0]))
        loss = diffusion_loss(denoised, clean, sigma, prediction)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(parameters, settings.gradient_clip)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
        if step:
            _check(losses[step - 1], step - 1, settings)
        on_step(step + 1, losses[step])
    _check(losses[-1], settings.steps - 1, settings)
    if not all(torch.isfinite(parameter).all() for parameter in parameters):  # no later loss would tell
        raise NonFiniteLoss(_breakdown("weights became infinite or NaN", settings.steps - 1, settings))
    return torch.stack(losses).tolist()


def _check(loss: torch.Tensor, step: int, settings: TuneSettings) -> None:
    value = loss.item()
    if not math.isfinite(value):
        raise NonFiniteLoss(_breakdown(f"loss became {value}", step, settings))


def _breakdown(what: str, step: int, settings: TuneSettings) -> str:
    return (
        f"The {what} at step {step + 1} of {settings.steps} and the tuning was stopped; the model is unchanged. "
        f"Lower the learning rate (now {settings.learning_rate:g}) or choose precision fp32 (now "
        f"{settings.precision}); if it happens at step 1, look for black or broken frames."
    )
