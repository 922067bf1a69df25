"""Measures of pictures and clips, `f h w c` or `f c h w` in 0..1."""

from __future__ import annotations

import torch


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB over all frames together; infinite for equal input.

    Raises `ValueError` for different shapes.
    """
    if a.shape != b.shape:
        raise ValueError(f"Cannot compare clips of different shapes {tuple(a.shape)} and {tuple(b.shape)}.")
    error = (a.double() - b.double()).square().mean()
    return float("inf") if error == 0 else float(-10 * torch.log10(error))
