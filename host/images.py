"""Checks of IMAGE inputs that come before any long work."""

from __future__ import annotations

import torch


def check_video(images: torch.Tensor, name: str) -> torch.Tensor:
    """An IMAGE's frames, `f h w 3` in float32 on the CPU, without transparency. Raises `ValueError` when it is empty,
    not a batch of pictures, or not finite."""
    if images.ndim != 4 or not images.numel():
        raise ValueError(f"{name} holds no frames, its shape is {list(images.shape)}: connect a video's frames.")
    frames = images[..., :3].float().cpu()
    if not torch.isfinite(frames).all():
        raise ValueError(f"{name} holds NaN or infinite values: decode it with another VAE or in fp32.")
    return frames.expand(*frames.shape[:3], 3).clamp(0, 1)


def check_same_clip(one: torch.Tensor, other: torch.Tensor, names: tuple[str, str], hint: str) -> None:
    """Raises `ValueError` when two clips `f h w 3` differ in size or number of frames."""
    for what, a, b in (("frames", len(one), len(other)), ("size", _size(one), _size(other))):
        if a != b:
            raise ValueError(f"{names[0]} and {names[1]} differ in {what}, {a} and {b}: {hint}")


def _size(clip: torch.Tensor) -> str:
    return f"{clip.shape[2]} x {clip.shape[1]}"
