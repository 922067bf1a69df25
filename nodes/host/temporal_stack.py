"""The temporal modules of a whole UNet."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import comfy.ops
import torch

from ...ei2.settings import InflationSettings
from ...ei2.spectral_norm import effective_weight
from ...ei2.stam import STAM
from ...ei2.temporal import TemporalModule
from ...ei2.temporal_attention import TemporalAttention
from .unet import Block, require_unet, transformer_blocks

FLOATS = (torch.float32, torch.bfloat16, torch.float16)


class TemporalStack(torch.nn.ModuleDict):
    """The temporal modules of a UNet, by the path of their block (dots become underscores)."""

    @classmethod
    def build(cls, blocks: list[Block], settings: InflationSettings, linear: Callable[..., torch.nn.Linear]):
        """New modules, whose weights are yet to be loaded or given by `initialize`."""
        if settings.temporal == "none":
            return cls()
        kind = partial(STAM, centering=settings.centering) if settings.temporal == "stam" else TemporalAttention
        return cls({cls.name(block): kind(block.channels, block.heads, linear=linear) for block in blocks})

    def initialize(self, settings: InflationSettings) -> None:
        """Initial weights, already normalized as `settings` ask."""
        generator = torch.Generator("cpu").manual_seed(0)
        for module in self.values():
            module.initialize(generator)
            self._normalize_once(module, settings)

    @staticmethod
    def name(block: Block) -> str:
        return block.path.replace(".", "_")

    @staticmethod
    def _normalize_once(module: TemporalModule, settings: InflationSettings) -> None:
        if settings.temporal != "stam" or settings.normalization == "off":
            return
        if settings.normalization == "strict":  # W / σ of a zero matrix does not exist
            torch.nn.init.xavier_uniform_(module.to_out.weight, generator=torch.Generator("cpu").manual_seed(1))
        plain = STAM(module.to_q.weight.shape[0], module.heads)
        plain.load_state_dict(module.state_dict())
        plain.restrict(settings.normalization, settings.normalization_scope)
        module.load_state_dict(effective_state(plain))


def effective_state(stack: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights a stack or module computes with: normalized matrices and biases, by plain names."""
    state = {}
    for name, layer in stack.named_modules():
        if name.rsplit(".", 1)[-1] in ("to_q", "to_k", "to_v", "to_out"):
            state[f"{name}.weight"] = effective_weight(layer)
            if layer.bias is not None:
                state[f"{name}.bias"] = layer.bias.detach().clone()
    return state


def host_stack(model, settings: InflationSettings) -> TemporalStack:
    """Temporal modules for the MODEL, of layers that the host casts and offloads; their weights are yet to come."""
    linear = partial(comfy.ops.manual_cast.Linear, dtype=_module_dtype(model), device=model.offload_device)
    return TemporalStack.build(transformer_blocks(require_unet(model)), settings, linear)


def _module_dtype(model) -> torch.dtype:
    """Temporal modules are kept as the UNet computes; fp8 weights compute in something larger."""
    dtype = model.get_model_object("manual_cast_dtype") or model.model_dtype()
    return dtype if dtype in FLOATS else torch.float16
