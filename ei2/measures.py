"""Measures of pictures and clips, `f h w c` or `f c h w` in 0..1."""

from __future__ import annotations

import torch


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB over all frames together; infinite for equal input.

    Raises `ValueError` for different shapes.
    """
    _require_same_shape(a, b)
    error = (a.double() - b.double()).square().mean()
    return _decibels(error)


def masked_psnr(a: torch.Tensor, b: torch.Tensor, weights: torch.Tensor) -> float:
    """As `psnr`, with each error weighted; `weights` (0..1) is expanded to the clips' shape, e.g. `f 1 h w`.

    Raises `ValueError` for different shapes and for weights that are zero everywhere.
    """
    _require_same_shape(a, b)
    weights = weights.double().expand(a.shape)
    if weights.sum() <= 0:
        raise ValueError("Cannot compare clips over an empty mask: its weights are zero everywhere.")
    error = ((a.double() - b.double()).square() * weights).sum() / weights.sum()
    return _decibels(error)


def flicker(clip: torch.Tensor, truth: torch.Tensor) -> float:
    """How much a clip's error changes from frame to frame: the mean absolute difference between consecutive frames of
    `clip - truth`, in units of the full range. What moves and looks as in the truth does not count, nor do errors that
    stay where they are; a wrong colour on something that moves does.

    Both have the frames first. Raises `ValueError` for different shapes and for fewer than two frames.
    """
    _require_same_shape(clip, truth)
    if len(clip) < 2:
        raise ValueError("Flicker needs at least two frames.")
    return float((clip.double() - truth.double()).diff(dim=0).abs().mean())


def _require_same_shape(a: torch.Tensor, b: torch.Tensor) -> None:
    if a.shape != b.shape:
        raise ValueError(f"Cannot compare clips of different shapes {tuple(a.shape)} and {tuple(b.shape)}.")


def _decibels(error: torch.Tensor) -> float:
    """A mean squared error as PSNR."""
    return float("inf") if error == 0 else float(-10 * torch.log10(error))
