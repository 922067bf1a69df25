"""Nodes that are right by themselves and wrong where the mistakes of `mistakes.py` put them."""

from __future__ import annotations

from collections.abc import Callable

from miniature.clips import CLIP_FILE

from .graphs import NEWER_WINDOWS, Graph, changed, edit_graph, node


def other_frames() -> Graph:
    """The same clip's first six frames, and a model tuned on them."""
    good = edit_graph(video=CLIP_FILE.name, frames=6, tune_steps=1)
    tune = changed({"tune6": good["tune"]}, {"tune6.latent": ("encode6", 0)})
    return {**changed({"video6": good["video"], "encode6": good["encode"]}, {"encode6.pixels": ("video6", 0)}), **tune}


def latent(class_type: str, **inputs) -> Callable[[], Graph]:
    return lambda: {"latent": node(class_type, **inputs)}


def patched(class_type: str, source: tuple[str, int], **inputs) -> Callable[[], Graph]:
    """The model, made into another kind of model by a node of the host."""
    return lambda: {"patched": node(class_type, model=source, **inputs)}


def advanced(**options) -> Callable[[], Graph]:
    """The model, inflated option by option."""
    defaults = {
        "spatial": "ffam",
        "coarse_factor": 2,
        "coarse_pool": "average",
        "temporal": "stam",
        "centering": "frames",
        "normalization": "bounded",
        "normalization_scope": "qkvo",
        "position": "after_feed_forward",
        "group_norm": "video",
    }
    return lambda: {"advanced": node("EI2_InflateUNetAdvanced", model=("mini", 0), **{**defaults, **options})}


def windows(**options) -> Callable[[], Graph]:
    """The tuned model with the host's context windows."""
    defaults = dict(
        context_length=2,
        context_overlap=1,
        context_schedule="standard_static",
        context_stride=1,
        closed_loop=False,
        fuse_method="pyramid",
        dim=0,
        **NEWER_WINDOWS,
    )
    return lambda: {"windows": node("ContextWindowsManual", model=("tune", 0), **{**defaults, **options})}


def multiplied(exponent: int) -> Callable[[], Graph]:
    """The clip's latents times ten to the power of `exponent`."""

    def build() -> Graph:
        sources = [("encode", 0), *((f"times{i}", 0) for i in range(exponent))]
        return {f"times{i}": node("LatentMultiply", samples=sources[i], multiplier=10.0) for i in range(exponent)}

    return build


def masked() -> Graph:
    mask = node("SolidMask", value=1.0, width=64, height=64)
    return {"mask": mask, "latent": node("SetLatentNoiseMask", samples=("encode", 0), mask=("mask", 0))}
