"""What long work will need of the memory, and what is free: said before it starts, and chosen by."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import comfy.model_management
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, ResBlock, UNetModel, Upsample

from ..ei2.memory_need import Arithmetic, Estimate, Need
from ..ei2.settings import PRESETS
from ..ei2.tuning import PRECISIONS
from ..ei2.unet_shape import Clip, ResLayer, SampleLayer, TransformerLayer, UNetShape
from .inflation import inflation_of
from .memory import FEWER, available_memory, explained_out_of_memory, gigabytes, size_of, total_memory
from .unet import require_unet
from .windows import context_windows

# over the estimate, for the holes in a heap: C's took up to half as much again in measurements; torch's own has fewer
MARGIN, CPU_MARGIN = 1.2, 1.5


@dataclass(frozen=True)
class TrainingPlan:
    """`checkpointing`: activations are to be recomputed; `reserve`: bytes to be free on the device beside the model;
    `lower`: what helps, besides fewer and smaller frames, when the memory runs out all the same."""

    checkpointing: bool
    reserve: int
    lower: str


def plan_training(
    doing: str, model, latents: torch.Tensor, choice: str, precision: str, prompt: list, learns: bool
) -> TrainingPlan:
    """How work with gradients on `latents` `f c h w` is to be done. `choice` of checkpointing: on, off, or auto, which
    is when it would not fit otherwise. `doing`: the work, as a noun; `precision`: of its arithmetic; `learns`: weights
    of the model learn, not only the text.

    Says what is needed and what is free. Raises `ValueError` when the device does not even have so much in all.
    """
    estimate, clip = training_estimate(model, precision, prompt), clip_of(latents)
    needs = {on: estimate.training(clip, on, learns) for on in (False, True)}
    device = model.load_device
    free, total = available_memory(device), total_memory(device)
    taken = needs[True].weights if device.type == "cpu" else 0  # there, the model's weights are in memory already
    margin = CPU_MARGIN if device.type == "cpu" else MARGIN
    checkpointing = choice == "on" if choice != "auto" else margin * needs[False].total - taken > free
    need = needs[checkpointing]
    _say(doing, latents, need, free + taken, "with" if checkpointing else "without", device)
    if need.total <= total:
        lower = f"Set window_frames below {clip.frames}" if learns else ""
        lower = lower if checkpointing else "Set gradient_checkpointing to on"
        return TrainingPlan(checkpointing, need.total - need.weights, lower)
    fits = estimate.frames_that_fit(clip, total, lambda clip: estimate.training(clip, True, learns))
    lower = "" if checkpointing else "set gradient_checkpointing to auto, "
    lower += "set precision to auto, " if learns and precision == "fp32" and device.type != "cpu" else ""
    lower += f"set window_frames to {fits} or fewer, or " if learns and fits > 1 else ""
    raise ValueError(_cannot_fit(doing, latents, need, total, lower, fits))


@contextmanager
def sampling_within_memory(
    doing: str,
    model,
    latents: torch.Tensor,
    prompt: list,
    guided: bool = False,
    kept: Callable[[Clip], float] = lambda clip: 0.0,
) -> Iterator[None]:
    """Around inverting or sampling `latents` `f c h w`: says what it needs, and what is free. `guided`: the host runs
    two prompts at once where there is room for it, else one after the other; `kept`: bytes that stay from call to call.
    Raises `ValueError` when the device does not even have so much in all, one prompt at a time, and `OutOfMemory`."""
    latents, device = _seen_at_once(model, latents), model.load_device
    estimate, clip = inference_estimate(model, prompt), clip_of(latents)
    one = lambda clip: replace(estimate.inference(clip), kept=round(kept(clip)))
    need = one(replace(clip, chunks=1 + guided))
    free, total = available_memory(device), total_memory(device)
    _say(doing, latents, need, free + (need.weights if device.type == "cpu" else 0), "", device)
    least = lambda clip: replace(one(clip), weights=0)  # the host keeps weights elsewhere where there is no room
    if least(clip).total > total:
        fits = estimate.frames_that_fit(clip, total, least)
        raise ValueError(_cannot_fit(doing, latents, one(clip), total, "", fits))
    with explained_out_of_memory(doing, latents, ""):
        yield


def training_estimate(model, precision: str, prompt: list) -> Estimate:
    """Of work with gradients on a MODEL, inflated or not."""
    low, device = PRECISIONS.get(precision, torch.float32), model.load_device
    norms = low.itemsize if device.type == "cpu" else torch.float32.itemsize
    return _estimate(model, Arithmetic(device, low.itemsize, norms, model.model_dtype() != low), prompt)


def inference_estimate(model, prompt: list) -> Estimate:
    """Of calls of a MODEL without gradients, inflated or not."""
    management = comfy.model_management
    fused = management.pytorch_attention_enabled() or management.xformers_enabled()
    dtype = model.get_model_object("manual_cast_dtype") or model.model_dtype()
    return _estimate(model, Arithmetic(model.load_device, dtype.itemsize, dtype.itemsize, fused=fused), prompt)


def clip_of(latents: torch.Tensor) -> Clip:
    """The size of a clip `f c h w`."""
    frames, _, height, width = latents.shape
    return Clip(frames, height, width)


def _seen_at_once(model, latents: torch.Tensor) -> torch.Tensor:
    """The clip, or as much of it as the host's context windows show the model."""
    windows = context_windows(model.model_options, len(latents))
    return latents if windows is None else latents[: windows.length]


def _estimate(model, arithmetic: Arithmetic, prompt: list) -> Estimate:
    inflation = inflation_of(model)
    settings = inflation.settings if inflation else PRESETS["Per-frame"]
    text = max(tokens.shape[1] for tokens, _ in prompt)
    return Estimate(unet_shape(require_unet(model), model.model_size()), settings, arithmetic, text)


def unet_shape(unet: UNetModel, weight_bytes: int) -> UNetShape:
    """The layers of the host's UNet, as the estimate counts them."""
    layers, skips, downsampling, channels = [], [], 1.0, unet.model_channels
    middle = [] if unet.middle_block is None else [unet.middle_block]
    for groups, going_down in ((unet.input_blocks, True), (middle, False), (unet.output_blocks, False)):
        dense = True  # Vid2Vid-zero's first attention on the way down, in the middle, and on the way up
        for group in groups:
            for module in group:
                if isinstance(module, ResBlock):
                    channels = module.out_channels
                    layers.append(ResLayer(module.channels, channels, downsampling, _count(module)))
                elif isinstance(module, SpatialTransformer):
                    layers.append(_transformer(module, downsampling, dense))
                    dense = False
                elif isinstance(module, Downsample):
                    layers.append(SampleLayer(module.channels, downsampling, _count(module)))
                    downsampling *= 2
                elif isinstance(module, Upsample):
                    downsampling /= 2
                    layers.append(SampleLayer(module.channels, downsampling, _count(module)))
            if going_down:
                skips.append((channels, downsampling))
    return UNetShape(tuple(layers), unet.model_channels, tuple(skips), weight_bytes)


def _transformer(module: SpatialTransformer, downsampling: float, dense: bool) -> TransformerLayer:
    blocks = module.transformer_blocks
    channels, heads = blocks[0].norm1.weight.shape[0], blocks[0].n_heads
    convolutions, weights = not module.use_linear, _count(blocks[0])
    return TransformerLayer(channels, heads, len(blocks), downsampling, convolutions, dense, weights)


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _say(doing: str, latents: torch.Tensor, need: Need, free: int, checkpointing: str, device: torch.device) -> None:
    parts = {"the model": need.weights, "what is learned": need.learned, "activations": need.kept + need.working}
    detail = ", ".join(f"{name} {gigabytes(size)}" for name, size in parts.items() if size)
    how = f" {checkpointing} gradient checkpointing" if checkpointing else ""
    place = "main memory" if device.type == "cpu" else "GPU memory"
    say = logging.warning if need.total > free else logging.info
    say(
        "EI2: %s of %s%s will need about %s of %s (%s); %s are free%s",
        doing,
        size_of(latents),
        how,
        gigabytes(need.total),
        place,
        detail,
        gigabytes(free),
        f". It may not fit: load {FEWER}." if need.total > free else ".",
    )


def _cannot_fit(doing: str, latents: torch.Tensor, need: Need, total: int, lower: str, fits: int) -> str:
    most = f"about {fits} frames of this size would fit" if fits else "not even one frame of this size would fit"
    return (
        f"{doing.capitalize()} of {size_of(latents)} would need about {gigabytes(need.total)} of memory, and there are "
        f"only {gigabytes(total)} in all: {lower}load {FEWER}; {most}."
    )
