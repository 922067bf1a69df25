"""STAM, EI²'s shift-restricted temporal attention (Zhang et al., NeurIPS 2023, arXiv 2305.17431)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .centering import instance_center
from .spectral_norm import spectral_normalize
from .temporal import LinearFactory, TemporalModule


class STAM(TemporalModule):
    """Temporal attention behind Instance Centering, with spectrally normalized projections.

    Layer Norm in such a module shifts the mean of the features that the frozen layers behind it expect, and free
    projections shift their variance; centering without scaling and bounded projections restrict both.
    `centering` is an axis of `instance_center`, or for comparison `layer_norm`: Layer Norm with γ = 1, β = 0.
    `restrict` puts the normalization on for training; saved weights are the effective matrices.
    """

    output_bias = False  # a bias is a shift of the mean, and would move a static clip, which is to stay untouched

    def __init__(self, channels: int, heads: int, centering: str = "frames", linear: LinearFactory = torch.nn.Linear):
        super().__init__(channels, heads, linear)
        self.centering = centering

    def normalize(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:]) if self.centering == "layer_norm" else instance_center(x, self.centering)

    def restrict(self, mode: str, scope: str) -> None:
        """Spectral normalization for training. `mode`: bounded, strict or off. `scope`: all projections (`qkvo`) or
        only those that enter the residual (`vo`)."""
        if mode == "off":
            return
        layers = [self.to_v, self.to_out] + ([self.to_q, self.to_k] if scope == "qkvo" else [])
        for layer in layers:
            spectral_normalize(layer, mode)
