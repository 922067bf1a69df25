"""The layers of a UNet and the size of a clip: what the need of memory follows from."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True)
class Clip:
    """A video to be trained on or run, by the size of its latents. `chunks`: so many prompts at once."""

    frames: int
    height: int
    width: int
    chunks: int = 1

    def grid(self, downsampling: float) -> tuple[int, int]:
        """Height and width of a level's features."""
        return ceil(self.height / downsampling), ceil(self.width / downsampling)

    def tokens(self, downsampling: float) -> int:
        """Of one frame, at a level."""
        height, width = self.grid(downsampling)
        return height * width

    def pixels(self, downsampling: float) -> int:
        """Of all frames and chunks, at a level."""
        return self.chunks * self.frames * self.tokens(downsampling)


@dataclass(frozen=True)
class ResLayer:
    """A ResBlock. As in all layers: `downsampling` of its input against the latents; `weights`: how many numbers."""

    inputs: int
    outputs: int
    downsampling: float
    weights: int


@dataclass(frozen=True)
class TransformerLayer:
    """A spatial transformer of `depth` blocks. `convolutions`: its projections are 1x1 convolutions, not linear;
    `dense`: Vid2Vid-zero attends densely in its first block; `weights`: of one block."""

    channels: int
    heads: int
    depth: int
    downsampling: float
    convolutions: bool
    dense: bool
    weights: int


@dataclass(frozen=True)
class SampleLayer:
    """The convolution of a Downsample or Upsample; `downsampling`: of what the convolution sees."""

    channels: int
    downsampling: float
    weights: int


Layer = ResLayer | TransformerLayer | SampleLayer


@dataclass(frozen=True)
class UNetShape:
    """A UNet. `layers`: in the order they run; `channels`: of the last features; `skips`: channels and downsampling of
    the features that wait for the way up; `weight_bytes`: what its weights take."""

    layers: tuple[Layer, ...]
    channels: int
    skips: tuple[tuple[int, float], ...]
    weight_bytes: int

    @property
    def transformers(self) -> list[TransformerLayer]:
        return [layer for layer in self.layers if isinstance(layer, TransformerLayer)]
