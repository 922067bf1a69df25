"""Tune-A-Video's temporal attention (Wu et al., ICCV 2023), the module EI² improves on."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .temporal import TemporalModule


class TemporalAttention(TemporalModule):
    """Temporal attention behind a Layer Norm whose affine part stays at γ = 1, β = 0 (it is never trained)."""

    def normalize(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:])
