"""Measures of pictures and clips, `f h w c` or `f c h w` in 0..1."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F

PSNR_LIMIT = 100.0  # dB, for an exact result: neither plots nor JSON can show infinity


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB over all frames together; infinite for equal input.

    Raises `ValueError` for different shapes.
    """
    _require_same_shape(a, b)
    return _decibels(torch.stack([error.mean() for error in _squared_errors(a, b)]).mean())


def masked_psnr(a: torch.Tensor, b: torch.Tensor, weights: torch.Tensor) -> float:
    """As `psnr`, with each error weighted; `weights` (0..1) is expanded to the clips' shape, e.g. `f 1 h w`.

    Raises `ValueError` for different shapes and for weights that are zero everywhere.
    """
    _require_same_shape(a, b)
    weights = weights.double().expand(a.shape)
    if weights.sum() <= 0:
        raise ValueError("Cannot compare clips over an empty mask: its weights are zero everywhere.")
    error = sum((error * weight).sum() for error, weight in zip(_squared_errors(a, b), weights))
    return _decibels(error / weights.sum())


def flicker(clip: torch.Tensor, truth: torch.Tensor) -> float:
    """How much a clip's error changes from frame to frame: the mean absolute difference between consecutive
    frames of `clip - truth`, in units of the full range. Correct motion does not count, nor does a constant
    error; a wrong colour on a moving object does.

    Frames are the first dimension of both. Raises `ValueError` for different shapes and for fewer than two frames.
    """
    _require_same_shape(clip, truth)
    _require_frames(clip, "Flicker")
    return float((clip.double() - truth.double()).diff(dim=0).abs().mean())


def frame_change(clip: torch.Tensor) -> torch.Tensor:
    """How much a clip changes from frame to frame: the mean absolute difference of consecutive frames, `f-1`, in units
    of the full range. Raises `ValueError` for fewer than two frames."""
    return torch.stack([step.mean() for step in _steps(clip)])


def added_change(edit: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """How much more an edit changes from frame to frame than its source does at the same place, `f-1`, in units of the
    full range: the mean over pixels and channels of max(0, |step of the edit| - |step of the source|).

    Measures flicker without a known correct result: an edit that is still wherever the source is still scores 0.
    Moving objects with a stronger contrast or a different outline also add a little. Raises `ValueError` for
    different shapes and for fewer than two frames.
    """
    _require_same_shape(edit, source)
    return torch.stack([(ours - theirs).clamp(min=0).mean() for ours, theirs in zip(_steps(edit), _steps(source))])


def consecutive_cosines(embeddings: torch.Tensor) -> torch.Tensor:
    """Cosine similarity of each frame's embedding with the next frame's: `f c` -> `f-1`.
    Raises `ValueError` for fewer than two."""
    _require_frames(embeddings, "Frame consistency")
    unit = F.normalize(embeddings.double(), dim=1)
    return (unit[:-1] * unit[1:]).sum(dim=1)


def mean_pair_cosine(embeddings: torch.Tensor) -> float:
    """The mean cosine over all pairs of different frames, `f c`. Raises `ValueError` for fewer than two frames."""
    _require_frames(embeddings, "Frame consistency")
    unit = F.normalize(embeddings.double(), dim=1)
    frames = len(unit)
    return float(((unit @ unit.T).sum() - unit.square().sum()) / (frames * (frames - 1)))


def cosines_to(embeddings: torch.Tensor, one: torch.Tensor) -> torch.Tensor:
    """Cosine similarity of each embedding `f c` with one other, `c`: `f`."""
    return F.normalize(embeddings.double(), dim=1) @ F.normalize(one.double(), dim=0)


def _squared_errors(a: torch.Tensor, b: torch.Tensor) -> Iterator[torch.Tensor]:
    """Frame by frame, since a clip can be large."""
    return ((x.double() - y.double()).square() for x, y in zip(a, b))


def _steps(clip: torch.Tensor) -> Iterator[torch.Tensor]:
    """Absolute differences of consecutive frames, one at a time."""
    _require_frames(clip, "Flicker")
    return ((after.double() - before.double()).abs() for before, after in zip(clip[:-1], clip[1:]))


def _require_frames(clip: torch.Tensor, measure: str) -> None:
    if len(clip) < 2:
        raise ValueError(f"{measure} needs at least two frames.")


def _require_same_shape(a: torch.Tensor, b: torch.Tensor) -> None:
    if a.shape != b.shape:
        raise ValueError(f"Cannot compare clips of different shapes {tuple(a.shape)} and {tuple(b.shape)}.")


def _decibels(error: torch.Tensor) -> float:
    """A mean squared error as PSNR."""
    return float("inf") if error == 0 else float(-10 * torch.log10(error))
