"""One-shot tuning inside the host: its guider runs the UNet, so conditioning, ControlNet and LoRA stay in effect.

Nothing of the shared model changes: the trained q projections are added by hooks, and the temporal modules are copies.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.patcher_extension import WrappersMP
from PIL import Image

from ..ei2.early_stop import EarlyStop
from ..ei2.snapshot_file import check_fits
from ..ei2.temporal import STAM
from ..ei2.tensor_file import part
from ..ei2.tune_file import TuneResult
from ..ei2.tuning import (
    Denoise,
    TrainingState,
    TuneSettings,
    at_timestep,
    autocast,
    from_noise,
    losses_by_timestep,
    tune,
)
from .identity import identify
from .inflation import KEY, LayerHook, query_layers, require_inflation
from .memory import explained_out_of_memory, plan_training
from .sampling import work_on
from .temporal_stack import TemporalStack, effective_state
from .training import (
    Differentiable,
    differentiable_clone,
    gradients,
    hold_controls,
    make_differentiable,
    without_inference_tensors,
)
from .ui import draw, extra, latent_picture
from .unet import prediction, require_unet, sigma_schedule, transformer_blocks
from .windows import at_frames, room_for

PREVIEW_TIMESTEP = 500  # of 1000: the model sees the composition and must have learned the rest


@dataclass(frozen=True)
class TuningStep:
    """One finished training step. `number` counts from 1. On demand: `state()`, the state to resume from;
    `learned()`, the result of tuning up to this step; `picture()`, the clip above and its denoised version
    below, or None if it cannot be drawn. `gain`: the loss relative to that of the model before the tuning at the same
    noise level, as a tensor; None unless asked for, and in a resumed run, which does not have that model any more."""

    number: int
    gain: torch.Tensor | None
    state: Callable[[], TrainingState]
    learned: Callable[[], TuneResult]
    picture: Callable[[], Image.Image | None]


def run_through(steps: Iterator[TuningStep]) -> None:
    """Runs all steps."""
    deque(steps, maxlen=0)


def tune_model(
    model,
    latents: torch.Tensor,
    positive: list,
    settings: TuneSettings,
    gradient_checkpointing: str,
    loop: Callable[[Iterator[TuningStep]], None] = run_through,
    start: TrainingState | None = None,
    measure_gain: bool = False,
    stop_early: bool = False,
) -> TuneResult:
    """Tunes an inflated MODEL on one clip `f c h w` (the host's latent scale) and returns what was learned. The MODEL
    does not change. `gradient_checkpointing`: auto, on or off. `loop(steps)` iterates over the steps, each of which
    runs when it is requested, and may raise to cancel. `start`: the state of an earlier run of the same tuning.
    `measure_gain`: also measures the model before the tuning, which takes as long as about two steps. `stop_early`:
    ends before `settings.steps` if nothing more is learned, see `EarlyStop`.

    Raises `ValueError` if the model is not inflated or the device is too small, `NonFiniteLoss` if training diverges,
    and `OutOfMemory` if there is less memory than expected.
    """
    inflation = require_inflation(model)
    frames = min(settings.window_frames or len(latents), len(latents))  # per step
    seen = latents[:frames]
    asked = gradient_checkpointing, settings.precision, positive, settings.optimizer
    plan = plan_training("tuning", model, seen, *asked)
    about = {
        "frames": frames,
        "size": tuple(latents.shape[2:]),
        "training": settings,
        "base": identify(model),
        "picture": latent_picture(model, latents),
    }
    with explained_out_of_memory("tuning", seen, plan.lower), gradients():
        latents, positive = latents.clone(), without_inference_tensors(positive)
        with differentiable_clone(model, settings.precision, plan.reserve) as clone:  # first, because it makes room
            trained = Trainable(model, start, settings.optimizer)
            options = inflation.settings, trained.stack, plan.checkpointing, inflation.warned, trained.hooks
            Differentiable(*options).put_on(clone)
            clone.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, KEY, room_for(frames))
            tuning = Tuning(model, trained, about, start, measure_gain, stop_early)

            def train(guider, clip: torch.Tensor, sigmas: torch.Tensor, options: dict) -> None:
                denoise, conds = _denoiser(guider, len(clip), options), guider.conds
                try:
                    loop(tuning.steps(denoise, clip))
                finally:
                    guider.conds = conds  # for the host, which cleans up their ControlNets

            work_on(clone, latents, {"positive": positive}, sigma_schedule(model)[-1:], train)
            return tuning.learned()


class Tuning:
    """The steps of one run, and what was learned so far. `about`: a `TuneResult`'s information on the run;
    `start`: the state of an earlier run; `measure_gain`, `stop_early`: as in `tune_model`."""

    def __init__(
        self, model, trained: Trainable, about: dict, start: TrainingState | None, measure_gain: bool, stop_early: bool
    ):
        self.model, self.trained, self.about, self.start = model, trained, about, start
        self.measure_gain, self.stop_early = measure_gain and start is None, stop_early
        self.losses = list(start.losses) if start else []

    def learned(self) -> TuneResult:
        weights = {"temporal": self.trained.temporal(), "query": self.trained.query()}
        losses = [float(loss) for loss in self.losses]
        return TuneResult(self.trained.inflation.settings, **weights, losses=losses, **self.about)

    def steps(self, denoise: Denoise, clip: torch.Tensor) -> Iterator[TuningStep]:
        """Trains on the clip `f c h w`, in the model's latent scale; `denoise` as in `tune`."""
        schedule, predicts = sigma_schedule(self.model).to(clip.device), prediction(self.model)
        picture = partial(self._picture, denoise, clip, schedule[PREVIEW_TIMESTEP])
        measure = partial(self._losses, denoise, clip, schedule, predicts)
        untuned = measure() if self.measure_gain else {}
        parameters, settings, enough = self.trained.parameters(), self.about["training"], None
        if self.stop_early:
            enough = EarlyStop(settings.steps, lambda: measure().values(), untuned.values())
        for step in tune(denoise, clip, schedule, parameters, settings, predicts, self.start, enough):
            self.losses.append(step.loss)
            state = lambda step=step: self.trained.with_weights(step.state())
            look = partial(extra, "preview of the tuning", partial(picture, step.window))
            gain = step.loss / at_timestep(step.timestep, untuned) if untuned else None
            yield TuningStep(step.number, gain, state, self.learned, look)

    def _losses(self, denoise: Denoise, clip: torch.Tensor, schedule: torch.Tensor, predicts: str) -> dict[int, float]:
        """Losses of the model as it is now, by timestep. Raises the host's interrupt."""
        losses = {}
        with self._without_gradients(clip):
            for timestep, loss in losses_by_timestep(denoise, clip, schedule, slice(0, self.about["frames"]), predicts):
                losses[timestep] = loss
                throw_exception_if_processing_interrupted()
        return losses

    @contextmanager
    def _without_gradients(self, clip: torch.Tensor) -> Iterator[None]:
        """Computes as training does, without an effect on it."""
        precision = self.about["training"].precision
        with torch.no_grad(), self.trained.without_trace(), autocast(precision, clip.device.type):
            yield

    def _picture(self, denoise: Denoise, clip: torch.Tensor, sigma: torch.Tensor, window: slice) -> Image.Image | None:
        with self._without_gradients(clip):
            pictured = from_noise(denoise, clip, window, sigma)
        return draw(self.model, [clip[window], pictured])


def _denoiser(guider, total: int, options: dict) -> Denoise:
    """The model as `tune` expects it, run by a sampling guider. A window of the `total` frames gets its own prompts."""
    whole = {name: [dict(cond) for cond in conds] for name, conds in guider.conds.items()}
    make_differentiable(guider)

    def denoise(x: torch.Tensor, sigma: torch.Tensor, window: slice) -> torch.Tensor:
        if len(x) < total:
            frames = range(*window.indices(total))
            guider.conds = dict(zip(whole, at_frames(list(whole.values()), frames, total)))
            hold_controls(guider)
        return guider(x, sigma, **options)

    return denoise


class Trainable:
    """Float32 copies of the temporal modules, normalized during training, and additions to the q projections, initially
    zero; both on the MODEL's device. `start`: the state of an earlier run; `optimizer`: that of the run."""

    def __init__(self, model, start: TrainingState | None, optimizer: str):
        self.inflation, device = require_inflation(model), model.load_device
        blocks, settings = transformer_blocks(require_unet(model)), self.inflation.settings
        self.stack = TemporalStack.ordinary(model, settings, self.inflation.stack.state_dict()).train()
        for module in self.stack.values():
            if isinstance(module, STAM):
                module.restrict(settings.normalization, settings.normalization_scope)
        layers = query_layers(blocks)
        zeros = {path: torch.zeros(layer.weight.shape, device=device) for path, layer in layers.items()}
        self.queries = {path: torch.nn.Parameter(weight) for path, weight in zeros.items()}
        if start:
            if start.file:
                check_fits(start, self._state(), self.parameters(), optimizer)
            self._restore(start.weights)

    def parameters(self) -> list[torch.nn.Parameter]:
        return [*self.stack.parameters(), *self.queries.values()]

    def temporal(self) -> dict[str, torch.Tensor]:
        """The temporal modules' effective weights, for a `TuneResult`."""
        return {name: weight.cpu() for name, weight in effective_state(self.stack).items()}

    def query(self) -> dict[str, torch.Tensor]:
        """The additions to the q projections, including those of earlier tunings, for a `TuneResult`."""
        earlier = self.inflation.tune.query if self.inflation.tune else {}
        deltas = {f"{path}.weight": delta.detach().cpu() for path, delta in self.queries.items()}
        return {name: delta + earlier.get(name, 0) for name, delta in deltas.items()}

    def with_weights(self, state: TrainingState) -> TrainingState:
        """The state with all trained tensors, to resume from."""
        return replace(state, weights=self._state())

    def _state(self) -> dict[str, torch.Tensor]:
        weights = {f"temporal.{name}": weight for name, weight in self.stack.state_dict().items()}
        return weights | {f"query.{name}": delta.detach() for name, delta in self.queries.items()}

    def _restore(self, weights: dict[str, torch.Tensor]) -> None:
        self.stack.load_state_dict(part(weights, "temporal."))
        with torch.no_grad():
            for path, weight in part(weights, "query.").items():
                self.queries[path].copy_(weight)

    def hooks(self, unet) -> list[tuple[torch.nn.Module, LayerHook]]:
        """The hooks that apply the additions to the q projections, by layer of the UNet."""

        def hook(layer, delta):
            add = lambda _, inputs, output: output + F.linear(inputs[0], delta.to(inputs[0].dtype))
            return [layer.register_forward_hook(add)]

        layers = [(unet.get_submodule(path), delta) for path, delta in self.queries.items()]
        return [(layer, partial(hook, layer, delta)) for layer, delta in layers]

    @contextmanager
    def without_trace(self) -> Iterator[None]:
        """Calls inside do not affect training: there is no power iteration, whose
        singular vectors are part of the state."""
        self.stack.eval()
        try:
            yield
        finally:
            self.stack.train()
