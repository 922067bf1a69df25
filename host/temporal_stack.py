"""The temporal modules of a whole UNet."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import comfy.ops
import torch

from ..ei2.settings import InflationSettings
from ..ei2.spectral_norm import effective_weight
from ..ei2.temporal import STAM, TemporalAttention
from .unet import Block, compute_dtype, require_unet, transformer_blocks

FLOATS = (torch.float32, torch.bfloat16, torch.float16)


class TemporalStack(torch.nn.ModuleDict):
    """The temporal modules of a UNet, by the path of their block (dots become underscores)."""

    @classmethod
    def build(cls, blocks: list[Block], settings: InflationSettings, linear: Callable[..., torch.nn.Linear]):
        """New modules without loaded weights."""
        if settings.temporal == "none":
            return cls()
        kind = partial(STAM, centering=settings.centering) if settings.temporal == "stam" else TemporalAttention
        return cls({block.name: kind(block.channels, block.heads, linear=linear) for block in blocks})

    @classmethod
    def ordinary(cls, model, settings: InflationSettings, state: dict[str, torch.Tensor]):
        """Modules of plain float32 layers on the MODEL's device, not managed by the host. `state`: their weights."""
        stack = cls.build(transformer_blocks(require_unet(model)), settings, torch.nn.Linear)
        stack.load_state_dict({name: weight.float() for name, weight in state.items()})
        return stack.to(model.load_device)


def effective_state(stack: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights that a stack or module computes with: normalized matrices and biases, by plain names."""
    state = {}
    for name, layer in stack.named_modules():
        if name.rsplit(".", 1)[-1] in ("to_q", "to_k", "to_v", "to_out"):
            state[f"{name}.weight"] = effective_weight(layer)
            if layer.bias is not None:
                state[f"{name}.bias"] = layer.bias.detach().clone()
    return state


def initial_state(blocks: list[Block], settings: InflationSettings) -> dict[str, torch.Tensor]:
    """The weights of untuned temporal modules, float32 on the CPU, already normalized according to `settings`."""
    stack = TemporalStack.build(blocks, settings, torch.nn.Linear)
    generator = torch.Generator("cpu").manual_seed(0)
    for module in stack.values():
        module.initialize(generator)
        if isinstance(module, STAM):
            if settings.normalization == "strict":  # W / σ of a zero matrix does not exist
                torch.nn.init.xavier_uniform_(module.to_out.weight, generator=torch.Generator("cpu").manual_seed(1))
            module.restrict(settings.normalization, settings.normalization_scope)
    return effective_state(stack)


def host_stack(model, settings: InflationSettings, state: dict[str, torch.Tensor] | None = None) -> TemporalStack:
    """Temporal modules for the MODEL, of layers that the host casts and offloads. `state`: their
    weights; default: untuned ones. The host's layers may have no weights until a state dict is loaded,
    and then keep its dtype, so it is cast first."""
    blocks, dtype = transformer_blocks(require_unet(model)), _module_dtype(model)
    linear = partial(comfy.ops.manual_cast.Linear, dtype=dtype, device=model.offload_device)
    stack = TemporalStack.build(blocks, settings, linear)
    state = initial_state(blocks, settings) if state is None else state
    stack.load_state_dict({name: weight.to(model.offload_device, dtype) for name, weight in state.items()})
    return stack


def _module_dtype(model) -> torch.dtype:
    """The dtype of temporal modules: the one the UNet computes in, which is larger than fp8 for fp8 weights."""
    dtype = compute_dtype(model)
    return dtype if dtype in FLOATS else torch.float16
