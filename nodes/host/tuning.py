"""One-shot tuning inside the host: its guider runs the UNet, so conditioning, ControlNet and LoRA stay in force.

Nothing of the shared model changes: the trained q projections are added by hooks, and the temporal modules are copies.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import comfy.samplers
import torch
from comfy.patcher_extension import WrappersMP
from PIL import Image

from ...ei2.tune_file import TuneResult
from ...ei2.tuning import TrainingState, TuneSettings, autocast, tune
from .differentiable import (
    Differentiable,
    differentiable_clone,
    gradients,
    hold_controls,
    make_differentiable,
    without_inference_tensors,
)
from .extras import extra
from .fingerprint import identify
from .inflation import KEY, require_inflation
from .latent_picture import draw, latent_picture
from .memory import explained_out_of_memory, plan_training
from .trainable import Trainable
from .unet import prediction, sigma_schedule
from .windows import at_frames, room_for

PREVIEW_TIMESTEP = 500  # of 1000: the model sees the composition and has to know the rest


@dataclass(frozen=True)
class TuningStep:
    """One step of a tuning, after it was done. `number` counts from 1. On demand: `state()`, where the tuning stands;
    `learned()`, what a tuning of only so many steps would have returned; `picture()`, above the clip, below what the
    model makes of it out of noise, None where it cannot be drawn."""

    number: int
    state: Callable[[], TrainingState]
    learned: Callable[[], TuneResult]
    picture: Callable[[], Image.Image | None]


def run_through(steps: Iterator[TuningStep]) -> None:
    """Does every step and nothing else."""
    deque(steps, maxlen=0)


def tune_model(
    model,
    latents: torch.Tensor,
    positive: list,
    settings: TuneSettings,
    gradient_checkpointing: str,
    loop: Callable[[Iterator[TuningStep]], None] = run_through,
    start: TrainingState | None = None,
) -> TuneResult:
    """Tunes an inflated MODEL on one clip `f c h w` (the host's latent scale) and returns what was learned; the MODEL
    stays as it is. `gradient_checkpointing`: auto, on or off. `loop(steps)` goes through the steps, each of which is
    done when it is asked for, and may raise to cancel. `start`: where an earlier run of the same tuning stood.

    Raises `ValueError` when the model is not inflated or the device too small, `NonFiniteLoss` when training breaks
    down, `OutOfMemory` when there is less memory than expected.
    """
    inflation = require_inflation(model)
    frames = min(settings.window_frames or len(latents), len(latents))  # seen at once
    seen = latents[:frames]
    plan = plan_training("tuning", model, seen, gradient_checkpointing, settings.precision, positive, learns=True)
    about = {
        "frames": frames,
        "size": tuple(latents.shape[2:]),
        "training": settings,
        "base": identify(model),
        "picture": latent_picture(model, latents),
    }
    losses = list(start.losses) if start else []
    with explained_out_of_memory("tuning", seen, plan.lower), gradients():
        latents, positive = latents.clone(), without_inference_tensors(positive)
        schedule, predicts = sigma_schedule(model), prediction(model)
        trained = Trainable(model, start)

        def learned() -> TuneResult:
            weights = {"temporal": trained.temporal(), "query": trained.query()}
            return TuneResult(inflation.settings, **weights, losses=[float(loss) for loss in losses], **about)

        def steps(denoise: Callable, clip: torch.Tensor) -> Iterator[TuningStep]:
            levels = schedule.to(clip.device)

            def picture(window: slice) -> Image.Image | None:
                with torch.no_grad(), trained.without_trace(), autocast(settings.precision, clip.device.type):
                    shown = from_noise(denoise, clip, window, levels[PREVIEW_TIMESTEP])
                return draw(model, [clip[window], shown])

            for step in tune(denoise, clip, levels, trained.parameters(), settings, predicts, start):
                losses.append(step.loss)
                state = lambda step=step: trained.with_weights(step.state())
                look = partial(extra, "preview of the tuning", partial(picture, step.window))
                yield TuningStep(step.number, state, learned, look)

        unet = Differentiable(inflation.settings, trained.stack, plan.checkpointing, inflation.warned, trained.hooks)
        clone = differentiable_clone(model, unet, settings.precision, plan.reserve)
        clone.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, KEY, room_for(frames))
        guider = comfy.samplers.CFGGuider(clone)
        guider.inner_set_conds({"positive": positive})
        sampler = TuneSampler(lambda denoise, clip: loop(steps(denoise, clip)))
        guider.sample(torch.zeros_like(latents), latents, sampler, schedule[-1:], disable_pbar=True)
        return learned()


def from_noise(denoise: Callable, clip: torch.Tensor, window: slice, sigma: torch.Tensor) -> torch.Tensor:
    """What the model makes of a window of the clip under the same noise each time."""
    clean = clip[window]
    noise = torch.randn(clean.shape, generator=torch.Generator("cpu").manual_seed(0)).to(clean)
    return denoise(clean + sigma * noise, sigma.expand(len(clean)), window)


class TuneSampler(comfy.samplers.Sampler):
    """A sampler that samples nothing: the host calls it with the model ready to run, and `train(denoise, clip)` trains.
    `denoise` is as `tune` takes it, `clip` `f c h w` in the model's latent scale."""

    def __init__(self, train: Callable[[Callable, torch.Tensor], None]):
        self.train = train

    def sample(self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, *args, **kwargs):
        whole = {name: [dict(cond) for cond in conds] for name, conds in model_wrap.conds.items()}
        make_differentiable(model_wrap)
        total = len(latent_image)

        def denoise(x: torch.Tensor, sigma: torch.Tensor, window: slice) -> torch.Tensor:
            if len(x) < total:
                frames = range(*window.indices(total))
                model_wrap.conds = dict(zip(whole, at_frames(list(whole.values()), frames, total)))
                hold_controls(model_wrap)
            return model_wrap(x, sigma, **extra_args)

        self.train(denoise, latent_image)
        return latent_image
