"""Features of newer hosts, used if available: parts of the node API, and dynamic VRAM.

    io.Schema(..., **searchable("ddim, inversion", has_intermediate_output=True))
    io.Int.Input(..., **ADVANCED)

Present in 0.18.1 and 0.33.0, not in 0.8.0: `search_aliases` (more words by which the node search finds a node),
`has_intermediate_output` (a node's display is sent again to a reloaded page, although the node is not an
output) and `advanced` inputs (shown on request). `essentials_category` is not used: nodes with it are shown as
the host's own, without the pack's name.

With dynamic VRAM (0.16 and later) weights are paged onto the device when a layer runs. A layer then computes with the
host's own copy of its weight, not with `module.weight`, and pages may be evicted between the forward and the backward
pass. Training therefore needs a copy of the model with ordinary weights.
"""

from __future__ import annotations

import inspect

import comfy.model_patcher
from comfy_api.latest import io

INPUTS = (io.Boolean.Input, io.Combo.Input, io.Float.Input, io.Int.Input, io.String.Input)


def offered(**fields) -> dict:
    """The given schema fields that this host supports."""
    known = inspect.signature(io.Schema).parameters
    return {name: value for name, value in fields.items() if name in known}


def searchable(words: str, **fields) -> dict:
    """The same, with `words`, separated by commas, by which the node search finds the node."""
    return offered(search_aliases=words.split(", "), **fields)


# For inputs that few users need: arguments for any input with a value.
ADVANCED = {"advanced": True} if all("advanced" in inspect.signature(kind).parameters for kind in INPUTS) else {}


def core_patcher(module, load_device, offload_device, static: bool = False):
    """A ModelPatcher of the class that the host's own loaders use. `static`: always with ordinary weights."""
    kind = comfy.model_patcher.ModelPatcher
    if not static:
        kind = getattr(comfy.model_patcher, "CoreModelPatcher", kind)  # looked up late: the host sets it at startup
    return kind(module, load_device, offload_device)


def unpin(model) -> None:
    """Gives back the MODEL's pinned main memory, which the host finds by its address: call it before weights are
    replaced."""
    getattr(model, "unpin_all_weights", lambda: None)()


def is_dynamic(model) -> bool:
    """Whether the host pages the MODEL's weights."""
    return getattr(model, "is_dynamic", lambda: False)()


def check_static_clone(model) -> None:
    """Raises `ValueError` if the host cannot make a copy of the MODEL with ordinary weights."""
    if is_dynamic(model) and getattr(model, "cached_patcher_init", None) is None:
        raise ValueError(
            "ComfyUI pages this model's weights (dynamic VRAM), and its loader does not say how to load it a second "
            'time, which training needs: load it with ComfyUI\'s "Load Checkpoint" or "Load Diffusion Model" node, or '
            "start ComfyUI with --disable-dynamic-vram."
        )


def static_clone(model):
    """A clone of the MODEL whose layers compute with `module.weight`. Copies the weights if the host pages them. Raises
    `ValueError` like `check_static_clone`."""
    check_static_clone(model)
    return model.clone(disable_dynamic=True) if is_dynamic(model) else model.clone()
