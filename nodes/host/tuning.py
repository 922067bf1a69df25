"""One-shot tuning inside the host: its guider runs the UNet, so conditioning, ControlNet and LoRA stay in force.

Nothing of the shared model changes: the trained q projections are added by hooks, and the temporal modules are copies.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import ExitStack

import comfy.samplers
import torch
import torch.nn.functional as F

from ...ei2.settings import InflationSettings
from ...ei2.stam import STAM
from ...ei2.tune_result import TuneResult
from ...ei2.tuning import TuneSettings, tune
from .differentiable import (
    DifferentiableUNet,
    differentiable_clone,
    gradients,
    make_differentiable,
    wants_checkpointing,
    without_inference_tensors,
)
from .inflation import InflatedUNet, TemporalStack, effective_state, require_inflation
from .unet import prediction, require_unet, sigma_schedule, transformer_blocks

QUERIES = ("attn1.to_q", "attn2.to_q")


def tune_model(
    model,
    latents: torch.Tensor,
    positive: list,
    settings: TuneSettings,
    gradient_checkpointing: str,
    on_step: Callable[[int, float], None],
    on_snapshot: Callable[[int, TuneResult], None] | None = None,
    snapshot_steps: Collection[int] = (),
) -> TuneResult:
    """Tunes an inflated MODEL on one clip `f c h w` (the host's latent scale) and returns what was learned; the MODEL
    stays as it is. `gradient_checkpointing`: auto, on or off. `on_step(step, loss)` may raise to cancel;
    `on_snapshot(step, learned)` gets what a tuning of only so many steps would have returned.

    Raises `ValueError` when the model is not inflated, `NonFiniteLoss` when training breaks down.
    """
    inflation = require_inflation(model)
    unet = require_unet(model)
    frames = latents.shape[0]
    with gradients():
        latents, positive = latents.clone(), without_inference_tensors(positive)
        stack = _trainable_stack(inflation, unet, model.load_device)
        queries = {
            f"{block.path}.{name}": torch.nn.Parameter(
                torch.zeros(block.module.get_submodule(name).weight.shape, device=model.load_device)
            )
            for block in transformer_blocks(unet)
            for name in QUERIES
        }
        checkpointing = wants_checkpointing(gradient_checkpointing, model, latents)
        wrapper = TrainingUNet(inflation.settings, stack, queries, checkpointing, inflation.warned)
        losses: list[float] = []

        def learned() -> TuneResult:
            return TuneResult(
                settings=inflation.settings,
                temporal={name: weight.cpu() for name, weight in effective_state(stack).items()},
                query={f"{path}.weight": delta.detach().cpu().clone() for path, delta in queries.items()},
                losses=list(losses),
                frames=frames,
            )

        def after_step(step: int, loss: float) -> None:
            losses.append(loss)
            on_step(step, loss)
            if on_snapshot and step in snapshot_steps:
                on_snapshot(step, learned())

        sampler = TuneSampler(
            sigma_schedule(model), [*stack.parameters(), *queries.values()], settings, prediction(model), after_step
        )
        guider = comfy.samplers.CFGGuider(differentiable_clone(model, wrapper, settings.precision))
        guider.inner_set_conds({"positive": positive})
        first_sigma = sigma_schedule(model)[-1:]
        guider.sample(torch.zeros_like(latents), latents, sampler, first_sigma, disable_pbar=True)
        return learned()


class TuneSampler(comfy.samplers.Sampler):
    """A sampler that samples nothing: the host calls it with the model ready to run, and it trains."""

    def __init__(self, schedule: torch.Tensor, parameters: list, settings: TuneSettings, predicts: str, on_step):
        self.schedule, self.parameters, self.settings = schedule, parameters, settings
        self.predicts, self.on_step = predicts, on_step

    def sample(self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, *args, **kwargs):
        make_differentiable(model_wrap)
        denoise = lambda x, sigma: model_wrap(x, sigma, **extra_args)
        schedule = self.schedule.to(latent_image.device)
        tune(denoise, latent_image, schedule, self.parameters, self.settings, self.predicts, self.on_step)
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

    def _hook_layers(self, unet, frames: int, hooks: ExitStack) -> None:
        super()._hook_layers(unet, frames, hooks)
        for path, delta in self.queries.items():
            add = lambda _, inputs, output, delta=delta: output + F.linear(inputs[0], delta.to(inputs[0].dtype))
            hooks.callback(unet.get_submodule(path).register_forward_hook(add).remove)


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
