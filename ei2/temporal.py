"""Temporal attention: STAM, EI²'s shift-restricted form, and Tune-A-Video's, which it improves on.

Both are residual attention over the frames at each position. They differ in the projections' input (STAM: Instance
Centering; Tune-A-Video: Layer Norm) and in how they are trained (STAM: spectrally normalized projections).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange

from .attention import attention
from .spectral_norm import spectral_normalize

LinearFactory = Callable[..., torch.nn.Linear]


class TemporalModule(torch.nn.Module, ABC):
    """x + W_O · Attention(n W_Q, n W_K, n W_V) over the frames, where n = `normalize(x)` is defined by subclasses.

    The projections are leaf layers made by `linear`, so the host's layer classes can cast and offload them. W_O starts
    at zero: an untuned module changes nothing.
    """

    output_bias = True
    gain = 1.0  # of the initial query, key and value projections, relative to Xavier's

    def __init__(self, channels: int, heads: int, linear: LinearFactory = torch.nn.Linear):
        super().__init__()
        self.heads = heads
        self.to_q = linear(channels, channels, bias=False)
        self.to_k = linear(channels, channels, bias=False)
        self.to_v = linear(channels, channels, bias=False)
        self.to_out = linear(channels, channels, bias=self.output_bias)

    @torch.no_grad()
    def initialize(self, generator: torch.Generator | None = None) -> None:
        """Xavier times `gain` for the query, key and value projections, zero for the output."""
        for layer in (self.to_q, self.to_k, self.to_v):
            torch.nn.init.xavier_uniform_(layer.weight, self.gain, generator)
        self.to_out.weight.zero_()
        if self.output_bias:
            self.to_out.bias.zero_()

    @abstractmethod
    def normalize(self, x: torch.Tensor) -> torch.Tensor:
        """`b f d c` -> `b f d c`, the projections' input."""

    def forward(self, x: torch.Tensor, frames: int) -> torch.Tensor:
        """`(b f) d c` -> `(b f) d c`; `frames` is f. There is no position embedding, so
        permuting the frames permutes the output."""
        video = rearrange(x, "(b f) d c -> b f d c", f=frames)
        normed = self.normalize(video)
        # projected before they are rearranged: torch multiplies strided tokens with a copy of the weights for each
        q, k, v = (rearrange(to(normed), "b f d c -> (b d) f c") for to in (self.to_q, self.to_k, self.to_v))
        mixed = attention(q, k, v, self.heads)
        change = rearrange(self.to_out(mixed), "(b d) f c -> (b f) d c", d=x.shape[1])
        return x + change.to(x.dtype)


class STAM(TemporalModule):
    """EI²'s shift-restricted temporal attention (Zhang et al., NeurIPS 2023, arXiv 2305.17431).

    Layer Norm in such a module shifts the mean of the features that the frozen layers after it expect, and unrestricted
    projections shift their variance. Centering without scaling and bounded projections limit both. `centering` is an
    axis of `instance_center`, or for comparison `layer_norm`: Layer Norm with γ = 1, β = 0. `restrict` adds the
    normalization for training; saved weights are the effective matrices.
    """

    output_bias = False  # a bias shifts the mean and would change a static clip, which must stay unchanged

    def __init__(self, channels: int, heads: int, centering: str = "frames", linear: LinearFactory = torch.nn.Linear):
        super().__init__(channels, heads, linear)
        self.centering = centering

    def normalize(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:]) if self.centering == "layer_norm" else instance_center(x, self.centering)

    def restrict(self, mode: str, scope: str) -> None:
        """Spectral normalization for training. `mode`: bounded, strict or off. `scope`: all projections (`qkvo`), or
        only values and output (`vo`)."""
        if mode == "off":
            return
        layers = [self.to_v, self.to_out] + ([self.to_q, self.to_k] if scope == "qkvo" else [])
        for layer in layers:
            spectral_normalize(layer, mode)


class TemporalAttention(TemporalModule):
    """Tune-A-Video's temporal attention (Wu et al., ICCV 2023): after a Layer Norm
    with a fixed affine part, γ = 1 and β = 0.

    As in the source, the query, key and value projections start at the default of `nn.Linear`: uniform in ±1/√channels.
    The output's bias starts at zero like its weight, so an untuned UNet equals the host's. (The source zeroes only the
    weight; its bias starts at small random values.)
    """

    gain = 3**-0.5

    def normalize(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:])


def instance_center(x: torch.Tensor, axis: str = "frames") -> torch.Tensor:
    """Instance Centering (EI², section on STAM): subtracts the mean and nothing else. There is no scaling and no affine
    part, so the features keep their variance.

    `x`: `b f d c` (videos, frames, tokens, channels). `axis` (our choice; the paper does not specify one): `frames`
    takes the mean over f per position and channel, so that a static clip becomes exactly zero; `frames_space` over f
    and d per channel; `channels` over c, Layer Norm's axis. The mean is taken in float32.
    """
    dims = {"frames": (1,), "frames_space": (1, 2), "channels": (3,)}[axis]
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    if axis == "frames":  # differences from one frame: the mean of equal numbers is not always that number
        wide = wide - wide[:, :1]
    return (wide - wide.mean(dim=dims, keepdim=True)).to(x.dtype)
