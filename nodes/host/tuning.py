"""One-shot tuning inside the host: its guider runs the UNet, so conditioning, ControlNet and LoRA stay in force.

Nodes run under torch's inference mode, so the host's weights are inference tensors, which autograd refuses; they are
replaced by equal ordinary ones. Nothing else of the shared model changes: the trained q projections are added by
hooks, and the temporal modules are copies.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial

import comfy.model_management
import comfy.samplers
import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import attention_basic, attention_pytorch
from comfy.patcher_extension import WrappersMP
from torch.utils.checkpoint import checkpoint

from ...ei2.settings import InflationSettings
from ...ei2.stam import STAM
from ...ei2.tune_result import TuneResult
from ...ei2.tuning import TuneSettings, tune
from .inflation import KEY, InflatedUNet, TemporalStack, detach, effective_state, require_inflation
from .unet import prediction, require_unet, res_blocks, sigma_schedule, transformer_blocks

QUERIES = ("attn1.to_q", "attn2.to_q")
FEW_TOKENS = 1024  # up to here a CPU trains faster with plain attention; beyond, that needs too much memory
ACTIVATION_BYTES = 2300  # rough need of a training step per frame, latent pixel and base channel, without checkpointing


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
    with torch.inference_mode(False), torch.enable_grad(), _host_in_training():
        latents, positive = latents.clone(), _without_inference_tensors(positive)
        trainee = model.clone()
        detach(trainee)
        if settings.precision == "fp32" and model.model_dtype() != torch.float32:
            trainee.set_model_compute_dtype(torch.float32)
        stack = _trainable_stack(inflation, unet, model.load_device)
        queries = {
            f"{block.path}.{name}": torch.nn.Parameter(
                torch.zeros(block.module.get_submodule(name).weight.shape, device=model.load_device)
            )
            for block in transformer_blocks(unet)
            for name in QUERIES
        }
        checkpointing = gradient_checkpointing == "on" or (
            gradient_checkpointing == "auto" and _needs_checkpointing(unet, latents, model.load_device)
        )
        wrapper = TrainingUNet(inflation.settings, stack, queries, checkpointing)
        trainee.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, KEY, wrapper)
        trainee.model_options["transformer_options"]["optimized_attention_override"] = _differentiable_attention

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
        comfy.model_management.load_models_gpu([trainee], force_full_load=True)
        guider = comfy.samplers.CFGGuider(trainee)
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
        host_model = model_wrap.inner_model
        _replace_inference_tensors(host_model.diffusion_model)  # after every load: loading may bring new ones
        host_model.diffusion_model.requires_grad_(False)
        denoise = lambda x, sigma: model_wrap(x, sigma, **extra_args)
        schedule = self.schedule.to(latent_image.device)
        tune(denoise, latent_image, schedule, self.parameters, self.settings, self.predicts, self.on_step)
        return latent_image


class TrainingUNet(InflatedUNet):
    """The inflated UNet with trainable temporal modules, additions to the q projections, and checkpointing."""

    def __init__(self, settings: InflationSettings, stack, queries: dict[str, torch.nn.Parameter], checkpointing: bool):
        super().__init__(settings, stack)
        self.queries = queries
        self.checkpointing = checkpointing

    def _change_layers(self, unet, frames: int, hooks: ExitStack) -> None:
        self._train_layers(unet, frames, hooks)
        if not self.checkpointing:
            return

        @contextmanager
        def recomputing():  # happens in the backward pass, when the hooks of the call are gone
            with ExitStack() as again:
                again.callback(self.stack.train)
                self.stack.eval()  # no further power iteration: the same spectral norms as in the first run
                self._train_layers(unet, frames, again)
                yield

        for module in [block.module for block in transformer_blocks(unet)] + res_blocks(unet):
            hooks.enter_context(_checkpointed(module, recomputing))

    def _train_layers(self, unet, frames: int, hooks: ExitStack) -> None:
        super()._change_layers(unet, frames, hooks)
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


def _differentiable_attention(default, q, k, v, heads, *args, **kwargs):
    """In place of the user's attention backend, which may have no backward (flash, sage)."""
    tokens = q.shape[-2]
    kernel = attention_basic if q.device.type == "cpu" and tokens <= FEW_TOKENS else attention_pytorch
    return kernel(q, k, v, heads, *args, **kwargs)


def _replace_inference_tensors(module: torch.nn.Module) -> None:
    """Swaps every inference tensor for an equal ordinary one, one at a time."""
    for child in module.modules():
        for name, parameter in child.named_parameters(recurse=False):
            if parameter.is_inference():
                setattr(child, name, torch.nn.Parameter(parameter.clone(), requires_grad=False))
        for name, buffer in child.named_buffers(recurse=False):
            if buffer.is_inference():
                setattr(child, name, buffer.clone())


def _without_inference_tensors(value):
    """Conditioning with its tensors copied; everything else is shared."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _without_inference_tensors(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_without_inference_tensors(item) for item in value)
    return value


@contextmanager
def _host_in_training():
    """Newer hosts ask this flag before they choose kernels and memory tricks without a backward."""
    management = comfy.model_management
    if not hasattr(management, "in_training"):
        yield
        return
    before, management.in_training = management.in_training, True
    try:
        yield
    finally:
        management.in_training = before


@contextmanager
def _checkpointed(module: torch.nn.Module, recomputing: Callable[[], AbstractContextManager]):
    """The module's activations are recomputed in the backward pass, inside `recomputing()`. Its options are frozen per
    call: the host goes on changing that dictionary, and the second run must see what the first one saw."""
    forward = module.forward

    def run(*args, **kwargs):
        if "transformer_options" in kwargs:
            kwargs["transformer_options"] = copy.copy(kwargs["transformer_options"])
        contexts = lambda: (nullcontext(), recomputing())
        return checkpoint(partial(forward, **kwargs), *args, use_reentrant=False, context_fn=contexts)

    module.forward = run
    try:
        yield
    finally:
        del module.forward


def _needs_checkpointing(unet, latents: torch.Tensor, device: torch.device) -> bool:
    """Whether a plain training step would take more than half of the free memory, by a rough rule."""
    frames, _, height, width = latents.shape
    need = frames * height * width * unet.model_channels * ACTIVATION_BYTES
    return need > 0.5 * comfy.model_management.get_free_memory(device)
