"""What STAM and Tune-A-Video's temporal attention share: residual attention over frames at each position."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from einops import rearrange

from .attention import attention

LinearFactory = Callable[..., torch.nn.Linear]


class TemporalModule(torch.nn.Module, ABC):
    """x + W_O · Attention(n W_Q, n W_K, n W_V) over the frames, with n = `normalize(x)`; subclasses define `normalize`.

    The projections are leaf layers made by `linear`, so that the host's layer classes can cast and offload them.
    W_O starts at zero: an untuned module changes nothing.
    """

    output_bias = True

    def __init__(self, channels: int, heads: int, linear: LinearFactory = torch.nn.Linear):
        super().__init__()
        self.heads = heads
        self.to_q = linear(channels, channels, bias=False)
        self.to_k = linear(channels, channels, bias=False)
        self.to_v = linear(channels, channels, bias=False)
        self.to_out = linear(channels, channels, bias=self.output_bias)

    @torch.no_grad()
    def initialize(self, generator: torch.Generator | None = None) -> None:
        """Xavier for the query, key and value projections, zero for the output."""
        for layer in (self.to_q, self.to_k, self.to_v):
            torch.nn.init.xavier_uniform_(layer.weight, generator=generator)
        self.to_out.weight.zero_()
        if self.output_bias:
            self.to_out.bias.zero_()

    @abstractmethod
    def normalize(self, x: torch.Tensor) -> torch.Tensor:
        """`b f d c` -> `b f d c`, what the projections see."""

    def forward(self, x: torch.Tensor, frames: int) -> torch.Tensor:
        """`(b f) d c` -> `(b f) d c`; `frames` is f. No position embedding: permuting frames permutes the output."""
        video = rearrange(x, "(b f) d c -> b f d c", f=frames)
        tokens = rearrange(self.normalize(video), "b f d c -> (b d) f c")
        mixed = attention(self.to_q(tokens), self.to_k(tokens), self.to_v(tokens), self.heads)
        change = rearrange(self.to_out(mixed), "(b d) f c -> (b f) d c", d=x.shape[1])
        return x + change.to(x.dtype)
