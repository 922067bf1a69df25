"""How much memory there is, and what happens when it runs out."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import comfy.model_management
import torch

FEWER = "fewer frames (max_frames of EI2 Load Video) or smaller ones (width and height)"
CELL = 8  # pixels to a latent's edge, in all models this pack can inflate

# Only CUDA has its own exception. What allocators say otherwise: torch's for main memory (Linux, Windows), MPS, C++,
# the libraries of matrix products and convolutions, and the host's attention.
EXHAUSTED = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "bad allocation",
    "could not create a memory object",
    "could not create a primitive",
    "ALLOC_FAILED",
)


class OutOfMemory(MemoryError):
    """The memory ran out during a run, with what to lower. Nothing of the run is kept and the models are as before."""


def free_ram() -> int:
    """Bytes of main memory that can be taken now."""
    return comfy.model_management.get_free_memory(torch.device("cpu"))


def available_memory(device: torch.device) -> int:
    """Bytes that can be taken on a device: what is free, and on a GPU what the host's models take, which it unloads."""
    management = comfy.model_management
    free = management.get_free_memory(device)
    if device.type == "cpu":
        return free
    return free + sum(
        one.model_loaded_memory()
        for one in management.current_loaded_models
        if one.device == device and one.model is not None
    )


def total_memory(device: torch.device) -> int:
    """Bytes that the device has in all."""
    return comfy.model_management.get_total_memory(device)


def gigabytes(count: float) -> str:
    return f"{count / 2**30:.1f} GB" if count >= 2**29 else f"{count / 2**20:.0f} MB"


def size_of(latents: torch.Tensor) -> str:
    """A clip `f c h w` in words."""
    frames, _, height, width = latents.shape
    return f"{frames} frames of {CELL * width} x {CELL * height} pixels"


@contextmanager
def explained_out_of_memory(doing: str, latents: torch.Tensor, lower: str) -> Iterator[None]:
    """Around a run on the clip `latents` `f c h w`: where its memory runs out, frees what it held, lets the host unload
    its models and raises `OutOfMemory`. `doing`: the run, as a noun; `lower`: what helps besides fewer and smaller
    frames, as an imperative, may be empty."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        release(error)
        first = f"{lower}, or load" if lower else "Load"
        raise OutOfMemory(
            f"The memory was not enough for {doing} of {size_of(latents)}; nothing was changed. {first} {FEWER}."
        ) from error


def release(error: Exception) -> None:
    """Frees what a run held that ran out of memory, and lets the host unload its models."""
    traceback.clear_frames(error.__traceback__)  # their variables hold the run's tensors
    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out, and is not one of ours, which explain it."""
    if isinstance(error, OutOfMemory):
        return False  # explained already
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return any(words.lower() in str(error).lower() for words in EXHAUSTED)
