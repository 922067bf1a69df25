"""The host's dynamic VRAM (ComfyUI 0.16 and later): weights are paged onto the device when a layer runs.

A layer then computes with the host's own copy of its weight, not with `module.weight`, and pages may be evicted between
the forward and the backward pass. Training therefore needs a copy of the model with ordinary weights.
"""

from __future__ import annotations

import comfy.model_patcher


def core_patcher(module, load_device, offload_device, static: bool = False):
    """A ModelPatcher of the kind that the host's own loaders make. `static`: with ordinary weights in any case."""
    kind = comfy.model_patcher.ModelPatcher
    if not static:
        kind = getattr(comfy.model_patcher, "CoreModelPatcher", kind)  # looked up late: the host sets it when it starts
    return kind(module, load_device, offload_device)


def is_dynamic(model) -> bool:
    """Whether the host pages the MODEL's weights."""
    return getattr(model, "is_dynamic", lambda: False)()


def check_static_clone(model) -> None:
    """Raises `ValueError` when the host cannot make a copy of the MODEL with ordinary weights."""
    if is_dynamic(model) and getattr(model, "cached_patcher_init", None) is None:
        raise ValueError(
            "ComfyUI pages this model's weights (dynamic VRAM), and its loader does not say how to load it a second "
            'time, which training needs: load it with ComfyUI\'s "Load Checkpoint" or "Load Diffusion Model" node, or '
            "start ComfyUI with --disable-dynamic-vram."
        )


def static_clone(model):
    """A clone of the MODEL whose layers compute with `module.weight`; a copy of the weights where the host pages them.
    Raises `ValueError` as `check_static_clone`."""
    check_static_clone(model)
    return model.clone(disable_dynamic=True) if is_dynamic(model) else model.clone()
