"""One-shot tuning inside the host: its guider runs the UNet, so conditioning, ControlNet and LoRA stay in force.

Nothing of the shared model changes: the trained q projections are added by hooks, and the temporal modules are copies.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import contextmanager
from functools import partial

import comfy.samplers
import torch
import torch.nn.functional as F
from comfy.patcher_extension import WrappersMP

from ...ei2.settings import InflationSettings
from ...ei2.stam import STAM
from ...ei2.tune_result import TuneResult
from ...ei2.tuning import TrainingState, TuneSettings, autocast, tune
from .differentiable import (
    DifferentiableUNet,
    differentiable_clone,
    gradients,
    hold_controls,
    make_differentiable,
    without_inference_tensors,
)
from .fingerprint import identify
from .inflation import KEY, InflatedUNet, LayerHook, TemporalStack, effective_state, require_inflation
from .latent_picture import latent_picture
from .memory import explained_out_of_memory
from .memory_estimate import plan_training
from .snapshots import restore, with_weights
from .tune_preview import TunePreview
from .unet import prediction, require_unet, sigma_schedule, transformer_blocks
from .windows import at_frames

QUERIES = ("attn1.to_q", "attn2.to_q")


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
    unet = require_unet(model)
    frames = min(settings.window_frames or len(latents), len(latents))  # seen at once
    seen = latents[:frames]
    plan = plan_training("tuning", model, seen, gradient_checkpointing, settings.precision, positive, learns=True)
    base, picture = identify(model), latent_picture(model, latents)
    with explained_out_of_memory("tuning", seen, plan.lower), gradients():
        latents, positive = latents.clone(), without_inference_tensors(positive)
        stack = _trainable_stack(inflation, unet, model.load_device)
        queries = {
            f"{block.path}.{name}": torch.nn.Parameter(
                torch.zeros(block.module.get_submodule(name).weight.shape, device=model.load_device)
            )
            for block in transformer_blocks(unet)
            for name in QUERIES
        }
        earlier = inflation.tune.query if inflation.tune else {}
        wrapper = TrainingUNet(inflation.settings, stack, queries, plan.checkpointing, inflation.warned)
        losses = list(start.losses) if start else []
        if start:
            restore(start.weights, stack, queries)

        def learned() -> TuneResult:
            return TuneResult(
                settings=inflation.settings,
                temporal={name: weight.cpu() for name, weight in effective_state(stack).items()},
                query={
                    name: delta.detach().cpu() + earlier.get(name, 0)
                    for name, delta in ((f"{path}.weight", delta) for path, delta in queries.items())
                },
                losses=[float(loss) for loss in losses],
                frames=frames,
                size=tuple(latents.shape[2:]),
                training=settings,
                base=base,
                picture=picture,
            )

        def after_step(step: int, loss: torch.Tensor) -> None:
            losses.append(loss)
            on_step(step, loss)
            if on_snapshot and step in snapshot_steps:
                on_snapshot(step, learned())

        @contextmanager
        def without_trace():
            stack.eval()  # no power iteration: the singular vectors are part of the training
            try:
                with autocast(settings.precision, model.load_device.type):
                    yield
            finally:
                stack.train()

        sampler = TuneSampler(
            sigma_schedule(model), [*stack.parameters(), *queries.values()], settings, prediction(model), after_step,
            partial(preview.after_step, without_trace=without_trace) if preview else None,
            start=start, on_state=lambda state: on_state(with_weights(state, stack, queries)), state_every=state_every,
        )  # fmt: skip
        clone = differentiable_clone(model, wrapper, settings.precision, plan.reserve)
        clone.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, KEY, _room_for(frames))
        guider = comfy.samplers.CFGGuider(clone)
        guider.inner_set_conds({"positive": positive})
        first_sigma = sigma_schedule(model)[-1:]
        guider.sample(torch.zeros_like(latents), latents, sampler, first_sigma, disable_pbar=True)
        return learned()


class TuneSampler(comfy.samplers.Sampler):
    """A sampler that samples nothing: the host calls it with the model ready to run, and it trains. `preview(step,
    denoise, clean, schedule)` is called after every step; `state`: what `tune` needs to stop and go on."""

    def __init__(
        self, schedule: torch.Tensor, parameters: list, settings: TuneSettings, predicts: str, on_step, preview, **state
    ):
        self.schedule, self.parameters, self.settings = schedule, parameters, settings
        self.predicts, self.on_step, self.preview, self.state = predicts, on_step, preview, state

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

        denoise = lambda x, sigma: model_wrap(x, sigma, **extra_args)
        schedule = self.schedule.to(latent_image.device)

        def after_step(step: int, loss: torch.Tensor) -> None:
            self.on_step(step, loss)
            if self.preview:
                self.preview(step, denoise, latent_image[self.window], schedule)

        tune(
            denoise, latent_image, schedule, self.parameters, self.settings, self.predicts, after_step, look_at,
            **self.state,
        )  # fmt: skip
        return latent_image


class TrainingUNet(DifferentiableUNet):
    """The inflated UNet with trainable temporal modules and additions to the q projections."""

    def __init__(
        self,
        settings: InflationSettings,
        stack: torch.nn.Module,
        queries: dict[str, torch.nn.Parameter],
        checkpointing: bool,
        warned: set[str],
    ):
        super().__init__(settings, stack, checkpointing, warned)
        self.queries = queries

    def _layer_hooks(self, unet, frames: int) -> list[tuple[torch.nn.Module, LayerHook]]:
        def hook(layer, delta):
            add = lambda _, inputs, output: output + F.linear(inputs[0], delta.to(inputs[0].dtype))
            return [layer.register_forward_hook(add)]

        layers = [(unet.get_submodule(path), delta) for path, delta in self.queries.items()]
        return super()._layer_hooks(unet, frames) + [(layer, partial(hook, layer, delta)) for layer, delta in layers]


def _room_for(frames: int):
    """Around the host's preparation of a sampling: it is to make room for so many frames, not for all of the clip."""

    def prepare(executor, model, noise_shape, *args, **kwargs):
        return executor(model, [min(frames, noise_shape[0]), *noise_shape[1:]], *args, **kwargs)

    return prepare


def _trainable_stack(inflation: InflatedUNet, unet, device: torch.device) -> TemporalStack:
    """A float32 copy of the temporal modules with ordinary layers, normalized while they train."""
    settings = inflation.settings
    stack = TemporalStack.build(transformer_blocks(unet), settings, torch.nn.Linear)
    stack.load_state_dict({name: weight.float() for name, weight in inflation.stack.state_dict().items()})
    stack.to(device).train()
    for module in stack.values():
        if isinstance(module, STAM):
            module.restrict(settings.normalization, settings.normalization_scope)
    return stack
