"""Masks over the frames of a clip."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from . import PIXELS_PER_LATENT
from .inverted_clip import Inversion

MOST = 2.0  # values that resizing may give a mask; larger ones are on another scale
PULL = 4  # how strongly partly masked cells are pulled back over all steps together


def frame_masks(mask: torch.Tensor, frames: int, height: int, width: int, scale: int = 1) -> torch.Tensor:
    """One mask `f 1 h w` per frame from a mask `m H W` or `H W` in 0..1, at its
    own or another size, such as the latents'.

    `m` is 1, for all frames, or the number of frames; `scale`: the pixels of a cell, for messages. Downsampling takes
    the mean of each cell; upsampling interpolates linearly. Values slightly outside 0..1, as resizing gives them, are
    clipped. Raises `ValueError` for a different number of masks, a different aspect ratio, and values that are no
    mask's.
    """
    mask = _checked(mask, frames, scale * height, scale * width)
    if mask.shape[2] >= height and mask.shape[3] >= width:
        mask = F.adaptive_avg_pool2d(mask, (height, width))
    else:
        mask = F.interpolate(mask, (height, width), mode="bilinear", align_corners=False)
    return mask.expand(frames, 1, height, width)


class KeptOutside:
    """Keeps sampling on a trajectory outside a mask. Used as `after_step` of `ei2.ddim.sample_ddim`.

    `mask`: `f 1 h w` in 0..1, 1 where sampling is free; `trajectory`: `s+1 f c h w`, the latents at every σ
    of the sampling, from noise to clean. Where the mask is 0, the result is exactly the trajectory's end. In
    between, each of the s steps is pulled back with weight mask^(PULL / s), so the total pull does not
    depend on the number of steps, if there are at least `PULL` (our choice).
    """

    def __init__(self, mask: torch.Tensor, trajectory: torch.Tensor):
        self.weight = mask ** min(1.0, PULL / (len(trajectory) - 1))
        self.trajectory = trajectory

    def __call__(self, step: int, x: torch.Tensor) -> torch.Tensor:
        return torch.lerp(self.trajectory[step + 1].to(x), x, self.weight.to(x))


def kept_outside(mask: torch.Tensor, inversion: Inversion) -> KeptOutside:
    """A `KeptOutside` for a mask `m H W`, 1 where the clip may change. Raises `ValueError` if the mask does not fit the
    clip or is zero everywhere, and if the inversion has no trajectory."""
    if inversion.trajectory is None:
        raise ValueError(
            "A mask needs the inversion's trajectory: switch trajectory on in EI2 Invert, or remove the mask."
        )
    cells = frame_masks(mask, inversion.frames, *inversion.noise.shape[2:], PIXELS_PER_LATENT)
    if not cells.any():
        raise ValueError("The mask is black everywhere, so nothing could change: is it inverted?")
    return KeptOutside(cells, inversion.trajectory)


def _checked(mask: torch.Tensor, frames: int, height: int, width: int) -> torch.Tensor:
    """The mask as `m 1 H W` in float32."""
    mask = mask.unsqueeze(0) if mask.ndim == 2 else mask
    if mask.ndim != 3 or len(mask) not in (1, frames):
        count = len(mask) if mask.ndim == 3 else f"a batch of shape {list(mask.shape)} instead of 1 or {frames}"
        raise ValueError(f"There are {frames} frames, but the mask has {count}: give one mask, or one per frame.")
    if not mask.numel():
        raise ValueError("The mask has no pixels: make it again.")
    tall, wide = mask.shape[1:]
    # the same aspect ratio, except for rounding sizes to multiples of 8
    if abs(wide / width - tall / height) > 0.05 * max(wide / width, tall / height):
        raise ValueError(
            f"The mask is {wide} x {tall}, a different shape of picture than the frames' {width} x {height}: make it "
            "from the frames that are edited."
        )
    if not torch.isfinite(mask).all():
        raise ValueError("The mask holds NaN or infinite values: make it again.")
    if mask.min() < -MOST or mask.max() > MOST:
        raise ValueError(
            f"The mask holds values from {mask.min():g} to {mask.max():g}, but they should lie between 0 and 1, and 1 "
            "(white) is where the edit may change the clip: divide it by its largest value."
        )
    return mask.float().clamp(0, 1).unsqueeze(1)
