"""Masks over the frames of a clip."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def frame_masks(mask: torch.Tensor, frames: int, height: int, width: int) -> torch.Tensor:
    """A mask `m H W` or `H W` in 0..1 for every frame at its size: `f 1 h w`. `m` is 1, for all frames, or the number
    of frames. Scaled linearly, with antialiasing going down.

    Raises `ValueError` for another number of masks, another shape of picture, and values outside 0..1.
    """
    mask = mask.unsqueeze(0) if mask.ndim == 2 else mask
    if mask.ndim != 3 or len(mask) not in (1, frames):
        count = len(mask) if mask.ndim == 3 else f"a batch of shape {list(mask.shape)} instead of 1 or {frames}"
        raise ValueError(f"There are {frames} frames, but the mask has {count}: give one mask, or one per frame.")
    tall, wide = mask.shape[1:]
    # the same shape of picture, but for the rounding of sizes to multiples of 8
    if abs(wide / width - tall / height) > 0.05 * max(wide / width, tall / height):
        raise ValueError(
            f"The mask is {wide} x {tall}, a different shape of picture than the frames' {width} x {height}: make it "
            "from the frames that are edited."
        )
    if not torch.isfinite(mask).all() or mask.min() < 0 or mask.max() > 1:
        raise ValueError("The mask holds values outside 0 to 1: 1 (white) is where the edit may change the clip.")
    mask = mask.float().unsqueeze(1)
    if mask.shape[2:] != (height, width):
        mask = F.interpolate(mask, (height, width), mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)
    return mask.expand(frames, 1, height, width)
