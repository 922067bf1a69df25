"""Runs the host's UNet under autograd, for one-shot tuning and null-text optimisation.

Nodes run under torch's inference mode, so the host's weights are inference tensors, which autograd refuses.
They are replaced by equal ordinary tensors. Nothing else of the shared model changes: everything belongs to a
clone, and hooks exist only during a call.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial

import comfy.model_management
import comfy.model_patcher
import comfy.samplers
import torch
from comfy.ldm.modules.attention import attention_pytorch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.patcher_extension import WrappersMP
from torch.utils.checkpoint import checkpoint

from ..ei2.attention import attention
from ..ei2.settings import InflationSettings
from .inflation import KEY, InflatedUNet, LayerHook, detach
from .newer import static_clone, unpin
from .sampling import without_guidance
from .step_caches import remove_step_caches
from .unet import Call, compute_dtype, res_blocks, transformer_blocks
from .windows import without_windows

LOADING = "EI2 loading"  # key of the wrapper that loads models
BETWEEN_BLOCKS = {"emb_patch", "input_block_patch", "input_block_patch_after_skip", "output_block_patch"}


class Differentiable:
    """A wrapper around its own `InflatedUNet` that passes gradients, and recomputes activations if
    `checkpointing`. `stack`: ordinary layers on the model's device, not managed by the host. `hooks(unet)`: further
    layers that behave differently."""

    def __init__(
        self,
        settings: InflationSettings,
        stack: torch.nn.Module,
        checkpointing: bool,
        warned: set[str] | None = None,
        hooks: Callable[[UNetModel], list[tuple[torch.nn.Module, LayerHook]]] = lambda unet: [],
    ):
        self.inflated = InflatedUNet(settings, stack, warned=warned)
        self.checkpointing, self.hooks = checkpointing, hooks

    def put_on(self, clone) -> None:
        """Lets a clone that is not inflated run so."""
        clone.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, KEY, self)

    @torch.compiler.disable  # as `InflatedUNet`
    def __call__(self, executor, *args, **kwargs):
        unet = executor.class_obj
        call = Call(args, kwargs)
        patches = call.options["patches"] = dict(call.options.get("patches", {}))
        for name in BETWEEN_BLOCKS & patches.keys():
            patches[name] = [partial(_keeping_values, patch) for patch in patches[name]]
        layers = self.inflated.layer_hooks(unet, call.frames) + self.hooks(unet)
        with ExitStack() as changes:
            if self.checkpointing:
                self._checkpoint(unet, layers, changes)
            return self.inflated.run(executor, call, layers)

    def _checkpoint(self, unet: UNetModel, layers: list[tuple[torch.nn.Module, LayerHook]], changes: ExitStack) -> None:
        modules = [block.module for block in transformer_blocks(unet)] + res_blocks(unet)
        if self.inflated.settings.position == "after_feed_forward":  # otherwise they are inside the blocks
            modules += self.inflated.stack.values()
        for module in modules:
            inside = set(module.modules())
            own = [hook for layer, hook in layers if layer in inside]
            changes.enter_context(_checkpointed(module, partial(self._recomputing, own)))

    @contextmanager
    def _recomputing(self, layer_hooks: list[LayerHook]):
        """The context for recomputation in the backward pass, when the hooks of the call are gone."""
        stack = self.inflated.stack
        with ExitStack() as hooks:
            hooks.callback(stack.train, stack.training)
            stack.eval()  # no further power iteration: the same spectral norms as in the first run
            for hook in layer_hooks:
                for handle in hook():
                    hooks.callback(handle.remove)
            yield


@contextmanager
def gradients():
    """A context in which the UNet can be differentiated. Tensors made outside must be copied inside before use."""
    with torch.inference_mode(False), torch.enable_grad(), _host_in_training():
        yield


@contextmanager
def differentiable_clone(model, precision: str, reserve: int):
    """A loaded clone of the MODEL for a `Differentiable`, without an inflation. Its patches, such as tuned q
    projections, stay in effect. `precision`: of the UNet's arithmetic; `reserve`: bytes that the host keeps free on the
    device next to it."""
    clone = without_guidance(static_clone(model))
    detach(clone)
    remove_step_caches(clone)
    dtype = compute_dtype(model)
    if precision == "fp32" and dtype != torch.float32:
        clone.set_model_compute_dtype(torch.float32)
    if precision == "bf16" and dtype == torch.float16:  # the host's casts to fp16 would turn small gradients into 0
        clone.set_model_compute_dtype(torch.bfloat16)
    without_windows(clone)  # the training code chooses the frames
    clone.model_options["transformer_options"]["optimized_attention_override"] = _differentiable_attention
    clone.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, LOADING, _in_inference_mode)
    load = comfy.model_management.load_models_gpu
    _in_inference_mode(load, [clone], memory_required=reserve, force_full_load=True)
    try:
        yield clone
    finally:
        if clone.force_cast_weights:  # the host's marks on the layers would keep patches off those it offloads later
            for layer in clone.model.diffusion_model.modules():
                comfy.model_patcher.wipe_lowvram_weight(layer)


def _in_inference_mode(load: Callable, *args, **kwargs):
    """Runs what loads models as the host does elsewhere. Weights that were made in inference mode, and are moved to
    another device outside, can be used neither outside nor inside: "Inference tensors do not track version counter"."""
    with torch.inference_mode():
        return load(*args, **kwargs)


def make_differentiable(guider: comfy.samplers.CFGGuider) -> None:
    """Replaces the UNet's inference tensors by ordinary ones without gradients; ControlNets do not change. Call it
    while the guider samples, after every load of the model, because loading may create new ones."""
    unet = guider.inner_model.diffusion_model
    unpin(guider.model_patcher)
    for child in unet.modules():
        for name, parameter in child.named_parameters(recurse=False):
            if not _can_be_saved(parameter):  # one at a time, so that no second copy of the model is needed
                setattr(child, name, torch.nn.Parameter(parameter.clone(), requires_grad=False))
        for name, buffer in child.named_buffers(recurse=False):
            if not _can_be_saved(buffer):
                setattr(child, name, buffer.clone())
    unet.requires_grad_(False)
    hold_controls(guider)


def _can_be_saved(tensor: torch.Tensor) -> bool:
    """Whether autograd can save it. If its data were moved to another device, `is_inference` tells how that was done,
    and the version counter how it was made."""
    try:
        return not tensor.is_inference() and tensor._version >= 0
    except RuntimeError:
        return False


def hold_controls(guider: comfy.samplers.CFGGuider) -> None:
    """Keeps gradients out of the ControlNets in a sampling guider's prompts."""
    for cond in (cond for conds in guider.conds.values() for cond in conds):
        if cond.get("control") is not None:
            cond["control"] = ConstantControl(cond["control"])


class ConstantControl:
    """A ControlNet or T2I adapter without gradients: its output is used as a constant that does not depend on the text
    or its weights. Everything else is delegated to the host's object."""

    def __init__(self, control):
        self._control = control

    def get_control(self, *args, **kwargs):
        with torch.no_grad():
            control = self._control.get_control(*args, **kwargs)
        if control is None:
            return None
        return {
            place: [None if residual is None else residual.as_subclass(Residual) for residual in residuals]
            for place, residuals in control.items()
        }

    def __getattr__(self, name: str):
        return getattr(self._control, name)


class Residual(torch.Tensor):
    """What a ControlNet adds to features. The host's `h += residual` then makes a new tensor, because the
    backward pass needs the old features."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        with torch._C.DisableTorchFunctionSubclass():
            if function in (torch.Tensor.add_, torch.Tensor.__iadd__):
                function = torch.Tensor.add
            return function(*args, **(kwargs or {}))


def without_inference_tensors(value):
    """Conditioning with its tensors copied; everything else is shared."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: without_inference_tensors(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(without_inference_tensors(item) for item in value)
    return value


def _keeping_values(patch: Callable, *args):
    """Wraps another node's patch between blocks. Some, such as FreeU_V2, change tensors in place that the backward pass
    needs unchanged, so the tensors autograd saves in them are copied."""
    with torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda saved: saved):
        return patch(*args)


def _differentiable_attention(default, q, k, v, heads, mask=None, *args, **kwargs):
    """Replaces the user's attention backend, which may have no backward pass (flash, sage)."""
    plain = mask is None and not kwargs.get("skip_reshape") and not kwargs.get("skip_output_reshape")
    if plain and len(q) == len(k):  # HyperTile splits only the queries into tiles, which the host's kernels accept
        return attention(q, k, v, heads)
    return attention_pytorch(q, k, v, heads, mask, *args, **kwargs)


@contextmanager
def _host_in_training():
    """Sets the flag that newer hosts check before they choose kernels and memory
    optimisations without a backward pass."""
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
    """Recomputes the module's activations in the backward pass, inside `recomputing()`. Its options are frozen per
    call: the host keeps changing that dictionary, and the second run must see the same values as the first."""
    forward, own = module.forward, vars(module).get("forward")  # another pack may have replaced this module's forward

    def run(*args, **kwargs):
        if "transformer_options" in kwargs:
            kwargs["transformer_options"] = copy.copy(kwargs["transformer_options"])
        contexts = lambda: (nullcontext(), recomputing())
        return checkpoint(partial(forward, **kwargs), *args, use_reentrant=False, context_fn=contexts)

    module.forward = run
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own
