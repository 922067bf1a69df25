"""Structural similarity (SSIM): Wang, Bovik, Sheikh, Simoncelli, IEEE Transactions on Image Processing 13(4), 2004."""

from __future__ import annotations

import torch
import torch.nn.functional as F

WINDOW, SIGMA = 11, 1.5  # pixels: the Gaussian window of the paper's section III-B
K1, K2 = 0.01, 0.03


def ssim_map(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The SSIM of every window inside the pictures: `f c h w` in 0..1 -> `f c h-10 w-10`, in float64.

    Channels are independent. Raises `ValueError` for different shapes and for pictures smaller than the window.
    """
    if a.shape != b.shape:
        raise ValueError(f"Cannot compare clips of different shapes {tuple(a.shape)} and {tuple(b.shape)}.")
    if min(a.shape[-2:]) < WINDOW:
        raise ValueError(
            f"SSIM looks at windows of {WINDOW} x {WINDOW} pixels, but the pictures are {a.shape[-1]} x {a.shape[-2]}: "
            "use larger ones."
        )
    a, b = a.double(), b.double()
    mean_a, mean_b = _blur(a), _blur(b)
    variance_a, variance_b = _blur(a * a) - mean_a**2, _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    c1, c2 = K1**2, K2**2  # the dynamic range is 1
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return luminance * (2 * covariance + c2) / (variance_a + variance_b + c2)


def ssim(a: torch.Tensor, b: torch.Tensor) -> float:
    """The mean SSIM over windows, channels and frames, `f c h w` in 0..1; 1 for equal input. Raises as `ssim_map`."""
    return float(ssim_map(a, b).mean())


def masked_ssim(a: torch.Tensor, b: torch.Tensor, weights: torch.Tensor) -> float | None:
    """The mean SSIM of the windows in which `weights` (`f 1 h w`, 0..1) is above zero everywhere, each weighted by its
    lowest weight; None if there is none. Raises like `ssim_map`."""
    windows = -F.max_pool2d(-weights.double(), WINDOW, stride=1)
    total = windows.sum() * a.shape[1]
    return float((ssim_map(a, b) * windows).sum() / total) if total > 0 else None


def _blur(x: torch.Tensor) -> torch.Tensor:
    """The Gaussian mean of every window inside the pictures."""
    offsets = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    kernel = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    kernel = kernel / kernel.sum()
    frames = x.flatten(0, 1).unsqueeze(1)
    rows = F.conv2d(frames, kernel.view(1, 1, 1, -1))
    return F.conv2d(rows, kernel.view(1, 1, -1, 1)).view(*x.shape[:2], x.shape[2] - WINDOW + 1, x.shape[3] - WINDOW + 1)
