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
from .unet_shape import Clip, Layer, ResLayer, SampleLayer, TransformerLayer, UNetShape

FULL = 4  # bytes of float32
LEARNED = 4 * FULL  # AdamW: a trained number, its gradient and two moments
FEED_FORWARD = 12  # block widths: both halves of the GEGLU's input, and the GELU
BACKWARD = 0.1  # what a module's gradients take at most, in parts of what it kept: modules free that as they go
QUERY_CHUNK = 1024  # queries whose scores are made at once without gradients, when memory is short
MOST_FRAMES = 100_000


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
        kept, largest, again = 0.0, 0.0, 0.0
        for layer in self._reached():
            inner, outer = self._inner(layer, clip, learns), self._outer(layer, clip)
            depth = layer.depth if isinstance(layer, TransformerLayer) else 1
            kept += outer + (self._inputs(layer, clip) if checkpointing else sum(inner) * depth)
            largest, again = max(largest, *inner), max(again, self._attended_again(layer, clip))
        low, norms = self.arithmetic.low, self.arithmetic.norms
        kept += self.shape.channels * clip.pixels(1) * (2 * norms + low)  # the last norm, SiLU and convolution
        working = largest * (1 + BACKWARD if checkpointing else BACKWARD) + again
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
        kind, dense, tokens = self._kind(layer), self._kind(layer) == "dense", clip.tokens(layer.downsampling)
        if self._attends_again(layer, clip):  # then its inputs are kept: queries, keys, values and coarse ones
            coarse = (self._keys(layer, clip) - tokens) / (clip.frames - 1)
            return low * width * (3 * pixels + 2 * clip.chunks * clip.frames * coarse)
        pools = kind == "ffam" and self.settings.coarse_factor > 1 and self.settings.coarse_pool == "average"
        inputs = 3 * width if pools else width  # pooling keeps keys and values, picking does not
        scored = self.arithmetic.keeps_scores(tokens * (clip.frames if dense else 1))
        attended = layer.heads * self._keys(layer, clip) if scored else width
        return low * (pixels * (inputs + attended) + self._gathered(layer, clip))

    def _gathered(self, layer: TransformerLayer, clip: Clip) -> float:
        """Numbers of all frames' keys and values."""
        sets = clip.chunks * (1 if self._kind(layer) == "dense" else clip.frames)
        return 2 * sets * self._keys(layer, clip) * layer.channels

    def _attends_again(self, layer: TransformerLayer, clip: Clip) -> bool:
        """Whether FFAM gathers keys and values again for its backward pass, a group of frames at a time."""
        kept = self._gathered(layer, clip) * self.arithmetic.low
        return self._kind(layer) == "ffam" and self._group(layer, clip) < clip.frames and kept > KEPT_BYTES

    def _attended_again(self, layer: Layer, clip: Clip) -> float:
        """What a group of frames has then: keys, values, scores or output, and their gradients."""
        if not isinstance(layer, TransformerLayer) or not self._attends_again(layer, clip):
            return 0.0
        keys, tokens = self._keys(layer, clip), clip.tokens(layer.downsampling)
        attended = layer.heads * keys if self.arithmetic.keeps_scores(tokens) else layer.channels
        group = clip.chunks * self._group(layer, clip)
        return 2 * self.arithmetic.low * group * (2 * keys * layer.channels + tokens * attended)

    def _group(self, layer: TransformerLayer, clip: Clip) -> int:
        """How many frames FFAM attends at once."""
        tokens = clip.tokens(layer.downsampling)
        return frames_at_once(clip.frames, tokens, self._keys(layer, clip) - tokens, self.arithmetic.device)

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
        scores = self.arithmetic.keeps_scores(clip.tokens(layer.downsampling))
        attended = layer.heads * self.text if scores else layer.channels
        queries = 0 if scores and learns else layer.channels
        return low * (pixels * (attended + queries) + 2 * clip.chunks * clip.frames * self.text * layer.channels)

    def _temporal(self, layer: TransformerLayer, clip: Clip, learns: bool) -> float:
        """The temporal module: inputs of the four projections, queries, keys, values, and scores or output."""
        if self.settings.temporal == "none":
            return 0.0
        low, norms = self.arithmetic.low, self.arithmetic.norms
        normalized = self.settings.temporal == "attention" or self.settings.centering == "layer_norm"
        attended = layer.heads * clip.frames if self.arithmetic.keeps_scores(clip.frames) else layer.channels
        pixels, width = clip.pixels(layer.downsampling), layer.channels
        per_pixel = width * (norms * normalized + (3 + 4 * learns) * low) + attended * low
        restricted = learns and self.settings.temporal == "stam" and self.settings.normalization != "off"
        weights = width**2 * ((4 if self.settings.normalization_scope == "qkvo" else 2) * FULL * restricted)
        return pixels * per_pixel + weights + 4 * width**2 * low * (low != FULL)

    def _running(self, layer: Layer, clip: Clip) -> float:
        """What a layer has at once without gradients, the features around it included."""
        low, pixels = self.arithmetic.low, clip.pixels(layer.downsampling)
        if isinstance(layer, ResLayer):
            return low * pixels * (4 * layer.inputs + layer.outputs)
        if isinstance(layer, SampleLayer):
            return low * pixels * 2 * layer.channels
        keys, kind, scored = self._keys(layer, clip), self._kind(layer), not self.arithmetic.fused
        tokens = clip.tokens(layer.downsampling)
        together = {"ffam": self._group(layer, clip), "dense": 1}.get(kind, clip.frames)
        queries = tokens * (clip.frames if kind == "dense" else 1)
        scores = 3 * layer.heads * min(queries, QUERY_CHUNK) * keys * scored
        spatial = 8 * layer.channels * pixels + clip.chunks * together * (2 * keys * layer.channels + scores)
        text = (5 * layer.channels + 2 * layer.heads * self.text * scored) * pixels
        attended = 2 * layer.heads * clip.frames * self.arithmetic.keeps_scores(clip.frames)
        temporal = (8 * layer.channels + attended) * pixels * (self.settings.temporal != "none")
        return low * max((6 + FEED_FORWARD) * layer.channels * pixels, spatial, text, temporal)
