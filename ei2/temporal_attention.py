"""Tune-A-Video's temporal attention (Wu et al., ICCV 2023), the module EI² improves on."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .temporal import TemporalModule


class TemporalAttention(TemporalModule):
    """Temporal attention behind a Layer Norm whose affine part stays at γ = 1, β = 0 (it is never trained).

    The output's bias starts at zero like its weight, so that an untuned UNet is the host's; the source zeroes only the
    weight and leaves the bias at its small random start.
    """

    def normalize(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:])
