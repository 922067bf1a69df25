"""Memory: how much there is, how much long work needs, and what happens when it runs out.

The need is estimated and logged before long work starts, and decides on gradient checkpointing.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import comfy.model_management
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, ResBlock, UNetModel, Upsample

from ..ei2 import PIXELS_PER_LATENT
from ..ei2.exhausted import ran_out
from ..ei2.memory_estimate import Arithmetic, Clip, Estimate, Layer, Need, UNetShape
from ..ei2.optimizers import ADAMW, FACTORED
from ..ei2.settings import PRESETS
from ..ei2.tuning import PRECISIONS
from .inflation import inflation_of
from .unet import compute_dtype, require_unet
from .windows import context_windows

FEWER = "fewer frames (max_frames of EI2 Load Video) or smaller ones (width and height)"
WORTH = 0.95  # another optimizer is advised if it brings the need below this share
MARGIN, CPU_MARGIN = 1.2, 1.5  # factors for heap fragmentation: torch's heap on a GPU has less of it than C's


class OutOfMemory(MemoryError):
    """Memory ran out during a run; the message says what to lower. Nothing of the run
    is kept, and the models are as before."""


def free_ram() -> int:
    """Bytes of main memory available now."""
    return comfy.model_management.get_free_memory(torch.device("cpu"))


def available_memory(device: torch.device) -> int:
    """Bytes available on a device: free memory, plus on a GPU the host's models, which it can unload."""
    management = comfy.model_management
    free = management.get_free_memory(device)
    if device.type == "cpu":
        return free
    return free + sum(
        loaded.model_loaded_memory()
        for loaded in management.current_loaded_models
        if loaded.device == device and loaded.model is not None
    )


def total_memory(device: torch.device) -> int:
    """The device's total memory in bytes."""
    return comfy.model_management.get_total_memory(device)


def gigabytes(count: float) -> str:
    return f"{count / 2**30:.1f} GB" if count >= 2**29 else f"{count / 2**20:.0f} MB"


def size_of(latents: torch.Tensor) -> str:
    """A clip `f c h w` in words."""
    frames, _, height, width = latents.shape
    return f"{frames} frames of {PIXELS_PER_LATENT * width} x {PIXELS_PER_LATENT * height} pixels"


@contextmanager
def explained_out_of_memory(doing: str, latents: torch.Tensor, lower: str) -> Iterator[None]:
    """Wraps a run on the clip `latents` `f c h w`: `out_of_memory_says`, with its size. `doing`: the run, as a noun;
    `lower`: what helps apart from fewer and smaller frames, as an imperative; may be empty."""
    remedy = f"{lower}, or load" if lower else "Load"
    with out_of_memory_says(f"{doing} of {size_of(latents)}; nothing was changed. {remedy} {FEWER}."):
        yield


@contextmanager
def out_of_memory_says(words: str) -> Iterator[None]:
    """Wraps work. If memory runs out and no inner wrapper has explained it, frees what the work held, lets the host
    unload its models and raises `OutOfMemory`. `words`: the work and what to do, after "not enough memory for"."""
    onednn = torch.backends.mkldnn.enabled
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, OutOfMemory) or not ran_out(error):  # the former is explained already
            raise
        traceback.clear_frames(error.__traceback__)  # their variables hold the run's tensors
        comfy.model_management.unload_all_models()
        comfy.model_management.soft_empty_cache()
        raise OutOfMemory(f"There was not enough memory for {words}") from error
    finally:
        # torch turns oneDNN off for good, with a warning only, when a matrix product of it gets no memory: everything
        # after it would round differently, and bf16 would be many times slower.
        torch.backends.mkldnn.enabled = onednn


@dataclass(frozen=True)
class TrainingPlan:
    """`checkpointing`: whether activations are recomputed; `reserve`: bytes to keep free on the device next to the
    model; `lower`: what helps, apart from fewer and smaller frames, if memory still runs out."""

    checkpointing: bool
    reserve: int
    lower: str


def plan_training(
    doing: str, model, latents: torch.Tensor, choice: str, precision: str, prompt: list, optimizer: str | None
) -> TrainingPlan:
    """Plans work with gradients on `latents` `f c h w`, and logs the memory it needs and the free memory.

    `doing`: the work, as a noun; `choice`: checkpointing on, off, or auto (only if the work does not fit otherwise);
    `precision`: of the arithmetic; `optimizer`: of the weights that are trained; None if only the text is. Raises
    `ValueError` if the device's total memory is too small.
    """
    estimate, clip = training_estimate(model, precision, prompt), clip_of(latents)
    needs = {on: estimate.training(clip, on, optimizer) for on in (False, True)}
    device = model.load_device
    free, total = available_memory(device), total_memory(device)
    loaded = needs[True].weights if device.type == "cpu" else 0  # on a CPU, the model's weights are in memory already
    margin = CPU_MARGIN if device.type == "cpu" else MARGIN
    checkpointing = choice == "on" if choice != "auto" else margin * needs[False].total - loaded > free
    need = needs[checkpointing]
    how = f" {'with' if checkpointing else 'without'} gradient checkpointing"
    _log(doing, latents, need, free + loaded, how, device)
    lean = optimizer == ADAMW and estimate.training(clip, True, FACTORED).total < WORTH * needs[True].total
    if need.total <= total:
        remedy = f"Set window_frames below {clip.frames}" if optimizer else ""
        remedy = f"Set optimizer to {FACTORED}" if lean else remedy
        remedy = remedy if checkpointing else "Set gradient_checkpointing to on"
        return TrainingPlan(checkpointing, need.total - need.weights, remedy)
    most = estimate.frames_that_fit(clip, total, lambda clip: estimate.training(clip, True, optimizer))
    remedy = "" if checkpointing else "set gradient_checkpointing to auto, "
    remedy += f"set optimizer to {FACTORED}, " if lean else ""
    remedy += "set precision to auto, " if optimizer and precision == "fp32" and device.type != "cpu" else ""
    remedy += f"set window_frames to {most} or fewer, or " if optimizer and most > 1 else ""
    raise ValueError(_cannot_fit(doing, latents, need, total, remedy, most))


@contextmanager
def sampling_within_memory(
    doing: str,
    model,
    latents: torch.Tensor,
    prompt: list,
    guided: bool = False,
    kept: Callable[[Clip], float] = lambda clip: 0.0,
) -> Iterator[None]:
    """Logs the memory needed to invert or sample `latents` `f c h w` and the free memory, then runs the body.

    `guided`: the host runs two prompts at once if there is room, otherwise one after the other; `kept`: bytes kept from
    call to call. Raises `ValueError` if the device's total memory is too small for one prompt, and `OutOfMemory`.
    """
    windows, device = context_windows(model.model_options, len(latents)), model.load_device
    latents = latents if windows is None else latents[: windows.length]
    estimate, clip = inference_estimate(model, prompt), clip_of(latents)
    # without room for both prompts at once the host runs them in turn, but the windows' tokens of both are kept
    anchors = lambda clip: replace(clip, frames=max(1, clip.frames - 1), chunks=1 + guided)
    shared = lambda clip: 0 if windows is None else estimate.shared(anchors(clip))
    need = lambda clip: replace(estimate.inference(clip), kept=round(kept(clip)) + shared(clip))
    expected = need(replace(clip, chunks=1 + guided))
    free, total = available_memory(device), total_memory(device)
    _log(doing, latents, expected, free + (expected.weights if device.type == "cpu" else 0), "", device)
    least = lambda clip: replace(need(clip), weights=0)  # the host keeps weights elsewhere if there is no room
    if least(clip).total > total:
        most = estimate.frames_that_fit(clip, total, least)
        raise ValueError(_cannot_fit(doing, latents, need(clip), total, "", most))
    with explained_out_of_memory(doing, latents, ""):
        yield


def training_estimate(model, precision: str, prompt: list) -> Estimate:
    """The estimate for work with gradients on a MODEL, inflated or not."""
    low, device = PRECISIONS.get(precision, torch.float32), model.load_device
    norms = low.itemsize if device.type == "cpu" else torch.float32.itemsize
    return _estimate(model, Arithmetic(device, low.itemsize, norms, model.model_dtype() != low), prompt)


def inference_estimate(model, prompt: list) -> Estimate:
    """The estimate for calls of a MODEL without gradients, inflated or not."""
    management = comfy.model_management
    fused = management.pytorch_attention_enabled() or management.xformers_enabled()
    size = compute_dtype(model).itemsize
    return _estimate(model, Arithmetic(model.load_device, size, size, fused=fused), prompt)


def clip_of(latents: torch.Tensor) -> Clip:
    """The size of a clip `f c h w`."""
    frames, _, height, width = latents.shape
    return Clip(frames, height, width)


def unet_shape(unet: UNetModel, weight_bytes: int) -> UNetShape:
    """The layers of the host's UNet, for the estimate."""
    layers, downsampling, channels = [], 1.0, unet.model_channels
    middle = [] if unet.middle_block is None else [unet.middle_block]
    for groups, going_down in ((unet.input_blocks, True), (middle, False), (unet.output_blocks, False)):
        dense = True  # Vid2Vid-zero's first attention in the down blocks, the middle and the up blocks
        for group in groups:
            for module in group:
                if isinstance(module, ResBlock):
                    channels = module.out_channels
                    layers.append(Layer("res", channels, downsampling, _count(module), inputs=module.channels))
                elif isinstance(module, SpatialTransformer):
                    blocks = module.transformer_blocks
                    sizes = {"heads": blocks[0].n_heads, "depth": len(blocks), "dense": dense}
                    layers.append(Layer("transformer", channels, downsampling, _count(blocks[0]), **sizes))
                    dense = False
                elif isinstance(module, (Downsample, Upsample)):
                    down = isinstance(module, Downsample)
                    downsampling *= 1 if down else 0.5
                    layers.append(Layer("sample", module.channels, downsampling, _count(module)))
                    downsampling *= 2 if down else 1
            if going_down:
                layers.append(Layer("skip", channels, downsampling))
    return UNetShape((*layers, Layer("out", unet.model_channels, 1.0)), weight_bytes)


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _estimate(model, arithmetic: Arithmetic, prompt: list) -> Estimate:
    inflation = inflation_of(model)
    settings = inflation.settings if inflation else PRESETS["Per-frame"]
    text = max(tokens.shape[1] for tokens, _ in prompt)
    return Estimate(unet_shape(require_unet(model), model.model_size()), settings, arithmetic, text)


def _log(doing: str, latents: torch.Tensor, need: Need, free: int, how: str, device: torch.device) -> None:
    parts = {"the model": need.weights, "what is learned": need.learned, "activations": need.kept + need.working}
    detail = ", ".join(f"{name} {gigabytes(size)}" for name, size in parts.items() if size)
    log = logging.warning if need.total > free else logging.info
    log(
        "EI2: %s of %s%s will need about %s of %s memory (%s); %s is free%s",
        doing,
        size_of(latents),
        how,
        gigabytes(need.total),
        "main" if device.type == "cpu" else "GPU",
        detail,
        gigabytes(free),
        f". It may not fit: load {FEWER}." if need.total > free else ".",
    )


def _cannot_fit(doing: str, latents: torch.Tensor, need: Need, total: int, remedy: str, frames: int) -> str:
    most = f"about {frames} frames of this size would fit" if frames else "not even one frame of this size would fit"
    return (
        f"{doing.capitalize()} of {size_of(latents)} would need about {gigabytes(need.total)} of memory, but the "
        f"device has only {gigabytes(total)}: {remedy}load {FEWER}; {most}."
    )
