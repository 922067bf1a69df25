"""Pictures seen at other places: sampling, smoothing, gradients, and the pixel grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def pixels(height: int, width: int, like: torch.Tensor) -> torch.Tensor:
    """The places (x, y) of a picture's pixels, `2 h w`, in pixels; the first pixel is at (0, 0)."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y]).to(like)


def seen_at(pictures: torch.Tensor, places: torch.Tensor, outside: str = "border") -> torch.Tensor:
    """The pictures `n c h w` at `places` `n 2 h' w'`, `n c h' w'`, interpolated linearly. `outside`: what lies beyond
    the picture, `border` (its edge's pixels) or `zeros`."""
    height, width = pictures.shape[2:]
    grid = torch.stack([(places[:, 0] + 0.5) * 2 / width - 1, (places[:, 1] + 0.5) * 2 / height - 1], dim=-1)
    return F.grid_sample(pictures, grid, padding_mode=outside, align_corners=False)


def blurred(pictures: torch.Tensor, sigma: float) -> torch.Tensor:
    """Smoothed by a Gaussian; `n c h w`, `sigma` in pixels."""
    radius, channels = max(1, round(3 * sigma)), pictures.shape[1]
    weights = torch.exp(-torch.arange(-radius, radius + 1).to(pictures).square() / (2 * sigma**2))
    weights = (weights / weights.sum()).expand(channels, 1, 1, -1)
    across = F.conv2d(F.pad(pictures, (radius, radius, 0, 0), mode="replicate"), weights, groups=channels)
    down = F.pad(across, (0, 0, radius, radius), mode="replicate")
    return F.conv2d(down, weights.transpose(2, 3), groups=channels)


def gradients(pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The derivatives per pixel to the right and downward, each `n c h w`."""
    padded = F.pad(pictures, (1, 1, 1, 1), mode="replicate")
    right = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    return right, (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
