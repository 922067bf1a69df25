"""The looks of the miniature's world: exact filters over a finished picture, for restyling."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

LUMA = (0.299, 0.587, 0.114)
PENCIL_SIGMA = 2.5  # pixels
BLOCK = 4  # pixels of the picture per pixel of pixel art
TONES = 6  # per channel in pixel art


def apply(look: str, picture: torch.Tensor) -> torch.Tensor:
    """The picture `3 h w` in 0..1 in that look. Raises ValueError for an unknown look."""
    if look not in LOOKS:
        raise ValueError(f"unknown look {look!r}: use one of {', '.join(LOOKS)}")
    return LOOKS[look](picture)


def blur(pictures: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur with `sigma` in pixels, `b c h w`."""
    channels, reach = pictures.shape[1], max(1, round(2.5 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=pictures.device) / sigma).square())
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    padded = F.pad(pictures, (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel, groups=channels), kernel.transpose(2, 3), groups=channels)


def _gray(picture: torch.Tensor) -> torch.Tensor:
    return sum(weight * channel for weight, channel in zip(LUMA, picture))[None]


def _pencil(picture: torch.Tensor) -> torch.Tensor:
    """Colour dodge: dark lines where the picture is darker than its surroundings, over a faint shading."""
    gray = _gray(picture)
    soft = blur(gray[None], PENCIL_SIGMA)[0]
    lines = ((gray + 0.1) / (soft + 0.1)).clamp(0, 1)
    tone = 0.08 + 0.9 * (0.75 * lines**4 + 0.25 * gray)
    return tone.expand(3, -1, -1) * torch.tensor([1.0, 0.99, 0.96]).view(3, 1, 1)


def _pixel_art(picture: torch.Tensor) -> torch.Tensor:
    small = F.avg_pool2d(picture[None], BLOCK)
    small = (small * (TONES - 1)).round() / (TONES - 1)
    return F.interpolate(small, scale_factor=BLOCK, mode="nearest")[0]


def _night(picture: torch.Tensor) -> torch.Tensor:
    tint, light = torch.tensor([0.28, 0.36, 0.58]), torch.tensor([0.01, 0.02, 0.07])
    return picture * tint.view(3, 1, 1) + light.view(3, 1, 1)


def _sepia(picture: torch.Tensor) -> torch.Tensor:
    tone = torch.tensor([1.05, 0.86, 0.62]).view(3, 1, 1)
    return (0.06 + 0.9 * _gray(picture) * tone).clamp(0, 1)


LOOKS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "normal": lambda picture: picture,
    "pencil sketch": _pencil,
    "pixel art": _pixel_art,
    "night": _night,
    "sepia": _sepia,
}
IN_WORDS = {  # what becomes of "a cat in a meadow"
    "normal": ("{}",),
    "pencil sketch": ("a pencil sketch of {}", "{}, pencil sketch"),
    "pixel art": ("pixel art of {}", "{}, pixel art"),
    "night": ("{} at night", "{}, at night"),
    "sepia": ("a sepia photo of {}", "{}, sepia"),
}
GRAY = ("pencil sketch", "sepia")  # looks in which colours are not seen
