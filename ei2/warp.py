"""Pictures seen at other places: the pixel grid, maps of it, sampling, smoothing, gradients."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def pixels(height: int, width: int, like: torch.Tensor) -> torch.Tensor:
    """The places (x, y) of a picture's pixels, `2 h w`, in pixels; the first pixel is at (0, 0)."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y]).to(like)


def resizing(across: float, down: float) -> torch.Tensor:
    """The map `3 3` of places to those in a picture resized by these factors. Centres of pixels, not their corners, are
    at whole numbers."""
    matrix = torch.diag(torch.tensor([across, down, 1.0], dtype=torch.float64))
    matrix[:2, 2] = (matrix.diagonal()[:2] - 1) / 2
    return matrix


def shrinking(height: int, width: int, largest: int) -> tuple[list[int], torch.Tensor]:
    """The size (height, width) of a picture shrunk to this longer side, if it is larger, and the map `3 3` of places to
    those in it."""
    shrink = min(1.0, largest / max(height, width))
    size = [round(edge * shrink) for edge in (height, width)]
    return size, resizing(size[1] / width, size[0] / height)


def moved(matrix: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Where a matrix `3 3` takes the pixels of a picture, `1 2 h w`."""
    grid = pixels(height, width, matrix)
    return (torch.einsum("ij,jhw->ihw", matrix[:2, :2], grid) + matrix[:2, 2].view(2, 1, 1)).unsqueeze(0)


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


def grown(masks: torch.Tensor, by: int) -> torch.Tensor:
    """Masks `n 1 h w` with every place spread by so many pixels to all sides."""
    wider = F.max_pool2d(masks, (1, 2 * by + 1), 1, (0, by))
    return F.max_pool2d(wider, (2 * by + 1, 1), 1, (by, 0))  # one after the other: a square window is slow
