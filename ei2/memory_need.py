"""How much memory it takes to train or run a UNet on a clip, counted from its layers.

A backward pass needs what the forward pass computed. What each operation keeps for it is counted here, in numbers per
layer; what is under way besides is a share of it, found by measurement (`dev.py bench memory` shows both).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil

import torch

from .attention import MAX_TOKENS
from .ffam import KEPT_BYTES, frames_at_once
from .settings import InflationSettings

FULL = 4  # bytes of float32
LEARNED = 4 * FULL  # AdamW: a trained number, its gradient and two moments
FEED_FORWARD = 12  # block widths: both halves of the GEGLU's input, and the GELU
BACKWARD = 1.0  # what a module's gradients take at most, in parts of what it kept
QUERY_CHUNK = 512  # queries whose scores are made at once without gradients, when memory is short
MOST_FRAMES = 100_000


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

    def pixels(self, downsampling: float) -> int:
        """Of all frames, at a level."""
        height, width = self.grid(downsampling)
        return self.chunks * self.frames * height * width


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


@dataclass(frozen=True)
class Arithmetic:
    """`low`: bytes of the numbers that matrix products take; `norms`: of what norms see and give, which autocast keeps
    in float32 on GPUs; `casts`: weights are cast for each use; `fused`: the host's attention, without gradients, makes
    no matrix of scores."""

    device: torch.device
    low: int
    norms: int
    casts: bool = False
    fused: bool = True

    def keeps_scores(self, queries: int) -> bool:
        """Whether attention under gradients keeps its matrix of scores: the plain form, on CPUs, does."""
        return self.device.type == "cpu" and queries <= MAX_TOKENS


@dataclass(frozen=True)
class Need:
    """Bytes. `weights`: of the model; `learned`: what is trained, with gradients and the optimiser's state; `kept`:
    what the forward pass keeps for the backward pass; `working`: what is there besides at the worst moment."""

    weights: int
    learned: int
    kept: int
    working: int

    @property
    def total(self) -> int:
        return self.weights + self.learned + self.kept + self.working


@dataclass(frozen=True)
class Estimate:
    """What one UNet needs. `text`: tokens of the prompt."""

    shape: UNetShape
    settings: InflationSettings
    arithmetic: Arithmetic
    text: int = 77

    def training(self, clip: Clip, checkpointing: bool, learns: bool = True) -> Need:
        """Of a training step. `learns`: the temporal modules and the query projections, as one-shot tuning does;
        otherwise gradients only pass through, as in null-text optimisation."""
        temporal, queries = self._learnable() if learns else (0, 0)
        kept, largest = 0.0, 0.0
        for layer in self._reached():
            inner, outer = self._inner(layer, clip, learns), self._outer(layer, clip)
            largest = max(largest, *inner)
            kept += outer + (self._inputs(layer, clip) if checkpointing else sum(inner) * self._depth(layer))
        low, norms = self.arithmetic.low, self.arithmetic.norms
        kept += self.shape.channels * clip.pixels(1) * (2 * norms + low)  # the last norm, SiLU and convolution
        working = largest * (1 + BACKWARD if checkpointing else BACKWARD)
        return Need(self.shape.weight_bytes, round(LEARNED * (temporal + queries)), round(kept), round(working))

    def inference(self, clip: Clip) -> Need:
        """Of a call of the UNet without gradients."""
        low = self.arithmetic.low
        skips = sum(channels * clip.pixels(downsampling) * low for channels, downsampling in self.shape.skips)
        working = max(self._running(layer, clip) for layer in self.shape.layers)
        temporal = self._learnable()[0] * low
        return Need(self.shape.weight_bytes + temporal, 0, 0, round(skips + working))

    def frames_that_fit(self, clip: Clip, limit: float, need: Callable[[Clip], Need]) -> int:
        """The most frames of a clip's size whose `need` stays within `limit` bytes; 0 when not even one does."""
        few, many = 0, MOST_FRAMES
        while few < many:
            middle = (few + many + 1) // 2
            if need(replace(clip, frames=middle)).total <= limit:
                few = middle
            else:
                many = middle - 1
        return few

    def _learnable(self) -> tuple[int, int]:
        """How many numbers the temporal modules and the query projections have: four and two matrices a block."""
        squares = sum(layer.depth * layer.channels**2 for layer in self.shape.transformers)
        return (0 if self.settings.temporal == "none" else 4 * squares), 2 * squares

    def _reached(self) -> list[Layer]:
        """The layers gradients pass through: from the first transformer on."""
        first = next(i for i, layer in enumerate(self.shape.layers) if isinstance(layer, TransformerLayer))
        return list(self.shape.layers[first:])

    @staticmethod
    def _depth(layer: Layer) -> int:
        return layer.depth if isinstance(layer, TransformerLayer) else 1

    def _inputs(self, layer: Layer, clip: Clip) -> float:
        """What checkpointing keeps in place of `_inner`: inputs, of a block and of its temporal module."""
        pixels, low = clip.pixels(layer.downsampling), self.arithmetic.low
        if isinstance(layer, ResLayer):
            return layer.inputs * pixels * low
        if isinstance(layer, TransformerLayer):
            modules = 2 if self._apart() else 1
            return modules * layer.depth * layer.channels * pixels * low
        return 0.0

    def _outer(self, layer: Layer, clip: Clip) -> float:
        """What is kept with checkpointing, too: around a transformer's blocks, and of a resampling convolution."""
        pixels, low, norms = clip.pixels(layer.downsampling), self.arithmetic.low, self.arithmetic.norms
        if isinstance(layer, TransformerLayer):
            projections = 2 * low if layer.convolutions else 0
            weights = 2 * layer.channels**2 * low * self.arithmetic.casts
            return layer.channels * pixels * (norms + projections) + weights
        if isinstance(layer, SampleLayer):
            return (layer.channels * pixels + layer.weights * self.arithmetic.casts) * low
        return 0.0

    def _inner(self, layer: Layer, clip: Clip, learns: bool) -> list[float]:
        """What is kept without checkpointing inside each module that it would compute again."""
        weights = layer.weights * self.arithmetic.low * self.arithmetic.casts
        if isinstance(layer, ResLayer):
            return [self._res(layer, clip) + weights]
        if isinstance(layer, TransformerLayer):
            block = self._spatial(layer, clip) + self._text(layer, clip, learns) + self._rest(layer, clip, learns)
            temporal = self._temporal(layer, clip, learns)
            return [block + weights, temporal] if self._apart() else [block + weights + temporal]
        return [0.0]

    def _apart(self) -> bool:
        """Whether temporal modules stand behind the blocks, not inside them."""
        return self.settings.temporal != "none" and self.settings.position == "after_feed_forward"

    def _res(self, layer: ResLayer, clip: Clip) -> float:
        """Two times norm, SiLU, convolution; and the convolution around them where the channels change."""
        low, norms = self.arithmetic.low, self.arithmetic.norms
        around = layer.inputs * low if layer.inputs != layer.outputs else 0
        return clip.pixels(layer.downsampling) * ((layer.inputs + layer.outputs) * (2 * norms + low) + around)

    def _rest(self, layer: TransformerLayer, clip: Clip, learns: bool) -> float:
        """A block but for its attentions: three norms, the inputs of learning projections, feed-forward."""
        low, norms = self.arithmetic.low, self.arithmetic.norms
        queries = 2 * layer.channels**2 * low if learns and low != FULL else 0
        inputs = 2 * low if learns else 0
        return layer.channels * clip.pixels(layer.downsampling) * (3 * norms + inputs + FEED_FORWARD * low) + queries

    def _spatial(self, layer: TransformerLayer, clip: Clip) -> float:
        """Self-attention: queries, keys and values as the kernel takes them, and its scores or its output."""
        low, width, pixels = self.arithmetic.low, layer.channels, clip.pixels(layer.downsampling)
        videos, frames, dense = clip.chunks, clip.frames, self._kind(layer) == "dense"
        tokens = pixels // (videos * frames)
        keys = self._keys(layer, clip)
        gathered = 2 * videos * (1 if dense else frames) * keys * width
        if self._kind(layer) == "ffam":
            pooled = 2 * width * pixels  # what pooling keeps, and what attending again starts from
            coarse = keys - tokens
            again = self._group(layer, clip) < frames and gathered * low > KEPT_BYTES
            if again:
                return low * (width * pixels + pooled + 2 * videos * frames * width * coarse / max(1, frames - 1))
            gathered += pooled if self._pools() else 0
        attended = layer.heads * keys if self.arithmetic.keeps_scores(tokens * (frames if dense else 1)) else width
        return low * (pixels * (width + attended) + gathered)

    def _attending(self, layer: TransformerLayer, clip: Clip) -> float:
        """What FFAM has at once where it attends to a group of frames again."""
        keys, group = self._keys(layer, clip), self._group(layer, clip)
        tokens = clip.pixels(layer.downsampling) // (clip.chunks * clip.frames)
        scores = layer.heads * keys * tokens if self.arithmetic.keeps_scores(tokens) else layer.channels * tokens
        return self.arithmetic.low * clip.chunks * group * (2 * keys * layer.channels + scores)

    def _group(self, layer: TransformerLayer, clip: Clip) -> int:
        """How many frames FFAM attends at once."""
        tokens = clip.pixels(layer.downsampling) // (clip.chunks * clip.frames)
        return frames_at_once(clip.frames, tokens, self._keys(layer, clip) - tokens, self.arithmetic.device)

    def _pools(self) -> bool:
        """Whether FFAM averages; picking tokens keeps nothing."""
        return self.settings.coarse_factor > 1 and self.settings.coarse_pool == "average"

    def _kind(self, layer: TransformerLayer) -> str:
        if self.settings.spatial != "dense_sca":
            return self.settings.spatial
        return "dense" if layer.dense else "sca"

    def _keys(self, layer: TransformerLayer, clip: Clip) -> int:
        """How many tokens a query attends to."""
        height, width = clip.grid(layer.downsampling)
        kind, factor = self._kind(layer), self.settings.coarse_factor
        if kind == "ffam":
            return height * width + (clip.frames - 1) * ceil(height / factor) * ceil(width / factor)
        return {"sca": 2, "dense": clip.frames}.get(kind, 1) * height * width

    def _text(self, layer: TransformerLayer, clip: Clip, learns: bool) -> float:
        """Cross-attention; without learning queries it is the text that learns, and its keys need the queries."""
        low, pixels = self.arithmetic.low, clip.pixels(layer.downsampling)
        scores = self.arithmetic.keeps_scores(pixels // (clip.chunks * clip.frames))
        attended = layer.heads * self.text if scores else layer.channels
        queries = 0 if scores and learns else layer.channels
        return low * (pixels * (attended + queries) + 2 * clip.chunks * clip.frames * self.text * layer.channels)

    def _temporal(self, layer: TransformerLayer, clip: Clip, learns: bool) -> float:
        """The temporal module: inputs of the four projections, queries, keys, values, and scores or output."""
        if self.settings.temporal == "none":
            return 0.0
        low, norms, full = self.arithmetic.low, self.arithmetic.norms, FULL
        normalized = self.settings.temporal == "attention" or self.settings.centering == "layer_norm"
        attended = layer.heads * clip.frames if self.arithmetic.keeps_scores(clip.frames) else layer.channels
        pixels, width = clip.pixels(layer.downsampling), layer.channels
        per_pixel = width * (norms * normalized + (3 + 4 * learns) * low) + attended * low
        restricted = learns and self.settings.temporal == "stam" and self.settings.normalization != "off"
        weights = width**2 * ((4 if self.settings.normalization_scope == "qkvo" else 2) * full * restricted)
        return pixels * per_pixel + weights + 4 * width**2 * low * (low != full)

    def _running(self, layer: Layer, clip: Clip) -> float:
        """What a layer has at once without gradients, the features around it included."""
        low, pixels = self.arithmetic.low, clip.pixels(layer.downsampling)
        if isinstance(layer, ResLayer):
            return low * pixels * (4 * layer.inputs + layer.outputs)
        if isinstance(layer, SampleLayer):
            return low * pixels * 2 * layer.channels
        keys, kind, scored = self._keys(layer, clip), self._kind(layer), not self.arithmetic.fused
        tokens = pixels // (clip.chunks * clip.frames)
        together = {"ffam": self._group(layer, clip), "dense": 1}.get(kind, clip.frames)
        queries = tokens * (clip.frames if kind == "dense" else 1)
        scores = 2 * layer.heads * min(queries, QUERY_CHUNK) * keys * scored
        spatial = 8 * layer.channels * pixels + clip.chunks * together * (2 * keys * layer.channels + scores)
        text = (5 * layer.channels + 2 * layer.heads * self.text * scored) * pixels
        attended = 2 * layer.heads * clip.frames * self.arithmetic.keeps_scores(clip.frames)
        temporal = (8 * layer.channels + attended) * pixels * (self.settings.temporal != "none")
        return low * max((6 + FEED_FORWARD) * layer.channels * pixels, spatial, text, temporal)
