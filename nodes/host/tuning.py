"""One-shot tuning inside the host: its guider runs the UNet, so conditioning, ControlNet and LoRA stay in force.

Nothing of the shared model changes: the trained q projections are added by hooks, and the temporal modules are copies.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import contextmanager

import comfy.samplers
import torch
from comfy.patcher_extension import WrappersMP

from ...ei2.tune_result import TuneResult
from ...ei2.tuning import TrainingState, TuneSettings, autocast, tune
from .differentiable import (
    differentiable_clone,
    gradients,
    hold_controls,
    make_differentiable,
    without_inference_tensors,
)
from .fingerprint import identify
from .inflation import KEY, require_inflation
from .latent_picture import latent_picture
from .memory import explained_out_of_memory
from .memory_estimate import plan_training
from .trainable import Trainable, TrainingUNet
from .tune_preview import TunePreview
from .unet import prediction, sigma_schedule
from .windows import at_frames, room_for


def tune_model(
    model,
    latents: torch.Tensor,
    positive: list,
    settings: TuneSettings,
    gradient_checkpointing: str,
    on_step: Callable[[int, torch.Tensor], None],
    on_snapshot: Callable[[int, TuneResult], None] | None = None,
    snapshot_steps: Collection[int] = (),
    start: TrainingState | None = None,
    on_state: Callable[[TrainingState], None] = lambda state: None,
    state_every: int = 0,
    preview: TunePreview | None = None,
) -> TuneResult:
    """Tunes an inflated MODEL on one clip `f c h w` (the host's latent scale) and returns what was learned; the MODEL
    stays as it is. `gradient_checkpointing`: auto, on or off. `on_step(step, loss)` may raise to cancel;
    `on_snapshot(step, learned)` gets what a tuning of only so many steps would have returned. `start`: where an earlier
    run of the same tuning stood, as `on_state` got it after every `state_every` steps and the last; 0: never.

    Raises `ValueError` when the model is not inflated or the device too small, `NonFiniteLoss` when training breaks
    down, `OutOfMemory` when there is less memory than expected.
    """
    inflation = require_inflation(model)
    frames = min(settings.window_frames or len(latents), len(latents))  # seen at once
    seen = latents[:frames]
    plan = plan_training("tuning", model, seen, gradient_checkpointing, settings.precision, positive, learns=True)
    about = {
        "frames": frames, "size": tuple(latents.shape[2:]), "training": settings,
        "base": identify(model), "picture": latent_picture(model, latents),
    }  # fmt: skip
    losses = list(start.losses) if start else []
    with explained_out_of_memory("tuning", seen, plan.lower), gradients():
        latents, positive = latents.clone(), without_inference_tensors(positive)
        trained = Trainable(model, start)

        def learned() -> TuneResult:
            weights = {"temporal": trained.temporal(), "query": trained.query()}
            return TuneResult(inflation.settings, **weights, losses=[float(loss) for loss in losses], **about)

        def after_step(step: int, loss: torch.Tensor) -> None:
            losses.append(loss)
            on_step(step, loss)
            if on_snapshot and step in snapshot_steps:
                on_snapshot(step, learned())

        sampler = TuneSampler(
            sigma_schedule(model), trained, settings, prediction(model), after_step, preview,
            start=start, on_state=lambda state: on_state(trained.with_weights(state)), state_every=state_every,
        )  # fmt: skip
        clone = differentiable_clone(model, TrainingUNet(trained, plan.checkpointing), settings.precision, plan.reserve)
        clone.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, KEY, room_for(frames))
        guider = comfy.samplers.CFGGuider(clone)
        guider.inner_set_conds({"positive": positive})
        first_sigma = sigma_schedule(model)[-1:]
        guider.sample(torch.zeros_like(latents), latents, sampler, first_sigma, disable_pbar=True)
        return learned()


class TuneSampler(comfy.samplers.Sampler):
    """A sampler that samples nothing: the host calls it with the model ready to run, and it trains. `preview`: a look
    at every step's model; `state`: what `tune` needs to stop and go on."""

    def __init__(
        self,
        schedule: torch.Tensor,
        trained: Trainable,
        settings: TuneSettings,
        predicts: str,
        on_step: Callable[[int, torch.Tensor], None],
        preview: TunePreview | None,
        **state,
    ):
        self.schedule, self.trained, self.settings, self.predicts = schedule, trained, settings, predicts
        self.on_step, self.preview, self.state = on_step, preview, state

    def sample(self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, *args, **kwargs):
        whole = {name: [dict(cond) for cond in conds] for name, conds in model_wrap.conds.items()}
        make_differentiable(model_wrap)

        def look_at(window: slice) -> None:
            self.window = window
            total = len(latent_image)
            if window != slice(0, total):
                frames = range(*window.indices(total))
                model_wrap.conds = dict(zip(whole, at_frames(list(whole.values()), frames, total)))
                hold_controls(model_wrap)

        @contextmanager
        def without_trace():
            with self.trained.without_trace(), autocast(self.settings.precision, latent_image.device.type):
                yield

        denoise = lambda x, sigma: model_wrap(x, sigma, **extra_args)
        schedule = self.schedule.to(latent_image.device)

        def after_step(step: int, loss: torch.Tensor) -> None:
            self.on_step(step, loss)
            if self.preview:
                self.preview.after_step(step, denoise, latent_image[self.window], schedule, without_trace)

        tune(
            denoise, latent_image, schedule, self.trained.parameters(), self.settings, self.predicts, after_step,
            look_at, **self.state,
        )  # fmt: skip
        return latent_image
