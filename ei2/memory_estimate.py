"""How much memory it takes to train or run a UNet on a clip.

A backward pass needs the activations of the forward pass: a known count of numbers per pixel, channel and layer. The
other memory allocated at the peak is a multiple of that, found by measurement (`dev.py bench memory` shows both).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil

import torch

from .attention import keeps_scores
from .ffam import frames_at_once, gathers_again
from .optimizers import ADAMW, BYTES
from .settings import InflationSettings

FULL = 4  # bytes of float32
FEED_FORWARD = 12  # numbers per pixel and channel kept: both halves of the GEGLU's input, and the GELU
RUNNING = 24  # the same at the GEGLU's product without gradients: its factors and the features around it
SCRATCH = 1.2  # memory that a CPU's kernels allocate without gradients, relative to torch's tensors
BACKWARD = 0.1  # a module's gradients take at most this fraction of its activations, which are freed on the way
QUERY_CHUNK = 1024  # queries per chunk of scores without gradients, when memory is short
MOST_FRAMES = 100_000


@dataclass(frozen=True)
class Clip:
    """A video by the size of its latents. `chunks`: the number of prompts at once."""

    frames: int
    height: int
    width: int
    chunks: int = 1

    def tokens(self, downsampling: float) -> int:
        """The tokens of one frame where features are `downsampling` times smaller than the latents."""
        return ceil(self.height / downsampling) * ceil(self.width / downsampling)

    def pixels(self, downsampling: float) -> int:
        """The same of all frames and chunks."""
        return self.chunks * self.frames * self.tokens(downsampling)


@dataclass(frozen=True)
class Layer:
    """A part of a UNet.

    `kind`: `res` (a ResBlock), `transformer`, `sample` (the convolution of a Downsample or Upsample), `skip`
    (features kept for the up blocks) or `out` (the last norm and convolution). `channels`: of its output; `inputs`:
    channels of a ResBlock's input; `downsampling`: of its input relative to the latents (of a `sample`: of its
    convolution's input); `weights`: the number of parameters, for a transformer in one of its `depth` blocks;
    `dense`: Vid2Vid-zero attends densely in the first block.
    """

    kind: str
    channels: int
    downsampling: float
    weights: int = 0
    inputs: int = 0
    heads: int = 0
    depth: int = 1
    dense: bool = False


@dataclass(frozen=True)
class UNetShape:
    """A UNet. `layers`: in execution order; `weight_bytes`: the memory of its weights."""

    layers: tuple[Layer, ...]
    weight_bytes: int


@dataclass(frozen=True)
class Arithmetic:
    """`low`: bytes per number in matrix products; `norms`: bytes per number in the norms' inputs and outputs, which
    autocast keeps in float32 on GPUs; `casts`: whether weights are cast for each use; `fused`: whether the host's
    attention, without gradients, avoids the matrix of scores."""

    device: torch.device
    low: int
    norms: int
    casts: bool = False
    fused: bool = True

    def scored(self, queries: int) -> bool:
        """Whether attention under gradients keeps its matrix of scores."""
        return keeps_scores(self.device, torch.float32 if self.low == FULL else torch.bfloat16, queries)


@dataclass(frozen=True)
class Need:
    """Memory in bytes. `weights`: the model's; `learned`: the trained parameters, with gradients and optimizer state;
    `kept`: activations kept for the backward pass; `working`: everything else at the peak."""

    weights: int
    learned: int
    kept: int
    working: int

    @property
    def total(self) -> int:
        return self.weights + self.learned + self.kept + self.working


@dataclass(frozen=True)
class Estimate:
    """What one inflated UNet needs. `text`: tokens of the prompt."""

    shape: UNetShape
    settings: InflationSettings
    arithmetic: Arithmetic
    text: int = 77

    def training(self, clip: Clip, checkpointing: bool, optimizer: str | None = ADAMW) -> Need:
        """The memory of a training step. `optimizer`: of the temporal modules and the query projections, as in one-shot
        tuning; None if gradients only pass through, as in null-text optimisation."""
        kept, largest, again, reached, learns = 0.0, 0.0, 0.0, False, optimizer is not None
        for layer in self.shape.layers:
            reached = reached or layer.kind == "transformer"  # no gradients pass the layers before the first one
            if reached:
                around, inputs, modules = self._kept(layer, clip, learns)
                kept += around + layer.depth * (inputs if checkpointing else sum(modules))
                largest = max(largest, *modules)
                again = max(again, self._spatial(layer, clip)[1]) if layer.kind == "transformer" else again
        learned = BYTES.get(optimizer, 0) * (self._temporal_weights() + 2 * self._squares())
        working = largest * (BACKWARD + checkpointing) + again
        return Need(self.shape.weight_bytes, learned, round(kept), round(working))

    def inference(self, clip: Clip) -> Need:
        """The memory of one UNet call without gradients."""
        skips = [layer for layer in self.shape.layers if layer.kind == "skip"]
        waiting = sum(layer.channels * clip.pixels(layer.downsampling) for layer in skips) * self.arithmetic.low
        working = max(self._running(layer, clip) for layer in self.shape.layers)
        weights = self.shape.weight_bytes + self._temporal_weights() * self.arithmetic.low
        scratch = SCRATCH if self.arithmetic.device.type == "cpu" else 1
        return Need(weights, 0, 0, round(scratch * (waiting + working)))

    def shared(self, clip: Clip) -> int:
        """Bytes of the coarse tokens of a clip's frames that all context windows share (`windows.CoarseTokens`)."""
        blocks = [layer for layer in self.shape.layers if layer.kind == "transformer"]
        numbers = sum(2 * layer.depth * layer.channels * self._coarse_tokens(layer, clip) for layer in blocks)
        return clip.chunks * clip.frames * numbers * self.arithmetic.low * (self.settings.spatial == "ffam")

    def frames_that_fit(self, clip: Clip, limit: float, need: Callable[[Clip], Need]) -> int:
        """The largest number of frames of this size whose `need` stays within `limit` bytes; 0 if not even one fits."""
        size = lambda frames: need(replace(clip, frames=frames)).total
        return bisect_right(range(MOST_FRAMES + 1), limit, lo=1, key=size) - 1

    def _squares(self) -> int:
        """The numbers in one square matrix of every transformer block."""
        return sum(layer.depth * layer.channels**2 for layer in self.shape.layers if layer.kind == "transformer")

    def _temporal_weights(self) -> int:
        return 0 if self.settings.temporal == "none" else 4 * self._squares()

    def _kept(self, layer: Layer, clip: Clip, learns: bool) -> tuple[float, float, list[float]]:
        """Bytes kept: around a layer's modules; by the modules' inputs, with checkpointing; by each module, without."""
        low, norms, casts = self.arithmetic.low, self.arithmetic.norms, self.arithmetic.low * self.arithmetic.casts
        pixels, channels = clip.pixels(layer.downsampling), layer.channels
        if layer.kind == "res":
            # twice norm, SiLU and convolution, and a convolution in the skip path if channels change
            around = layer.inputs * low if layer.inputs != channels else 0
            inside = pixels * ((layer.inputs + channels) * (2 * norms + low) + around)
            return 0.0, pixels * layer.inputs * low, [inside + layer.weights * casts]
        if layer.kind == "transformer":
            around = pixels * channels * (norms + 2 * low) + 2 * channels**2 * casts
            rest = pixels * channels * (3 * norms + (FEED_FORWARD + 2 * learns) * low)
            rest += 2 * channels**2 * low * (learns and low != FULL) + layer.weights * casts
            block = rest + self._spatial(layer, clip)[0] + self._text(layer, clip, learns)
            temporal = self.settings.temporal != "none"
            return (
                around,
                (1 + temporal) * pixels * channels * low,
                [block, temporal * self._temporal(layer, clip, learns)],
            )
        around = {"sample": pixels * channels * low, "out": pixels * channels * (2 * norms + low)}.get(layer.kind, 0.0)
        return around + layer.weights * casts, 0.0, [0.0]

    def _attended(self, layer: Layer, queries: int, keys: int) -> int:
        """Numbers that attention keeps for each query: its scores or its output."""
        return layer.heads * keys if self.arithmetic.scored(queries) else layer.channels

    def _view(self, layer: Layer, clip: Clip) -> tuple[str, int, int, int]:
        """A block's self-attention: its kind, the tokens per frame, and the keys and queries per attention call."""
        kind, tokens = self.settings.spatial, clip.tokens(layer.downsampling)
        kind = {"dense_sca": "dense" if layer.dense else "sca"}.get(kind, kind)
        coarse = (clip.frames - 1) * self._coarse_tokens(layer, clip)
        keys = {"ffam": tokens + coarse, "sca": 2 * tokens, "dense": clip.frames * tokens}.get(kind, tokens)
        return kind, tokens, keys, keys if kind == "dense" else tokens

    def _coarse_tokens(self, layer: Layer, clip: Clip) -> int:
        """FFAM's coarse tokens of one frame."""
        across, down = (ceil(edge / layer.downsampling) for edge in (clip.width, clip.height))
        return ceil(down / self.settings.coarse_factor) * ceil(across / self.settings.coarse_factor)

    def _spatial(self, layer: Layer, clip: Clip) -> tuple[float, float]:
        """Bytes that self-attention keeps, and those that FFAM needs to gather a group's keys and values again."""
        low, (kind, tokens, keys, queries) = self.arithmetic.low, self._view(layer, clip)
        pixels, channels = clip.pixels(layer.downsampling), layer.channels
        attended = self._attended(layer, queries, keys)
        gathered = 2 * clip.chunks * (1 if kind == "dense" else clip.frames) * keys * channels * low
        if kind == "ffam" and gathers_again(clip.frames, gathered):
            group = frames_at_once(clip.frames, tokens, keys - tokens, self.arithmetic.device)
            coarse = clip.chunks * clip.frames * (keys - tokens) / (clip.frames - 1)
            copies = group * clip.chunks * (2 * keys * channels + tokens * attended)
            return low * channels * (3 * pixels + 2 * coarse), 2 * low * copies  # with their gradients
        pools = kind == "ffam" and self.settings.coarse_factor > 1 and self.settings.coarse_pool == "average"
        return low * pixels * ((3 if pools else 1) * channels + attended) + gathered, 0.0

    def _text(self, layer: Layer, clip: Clip, learns: bool) -> float:
        """Bytes that cross-attention keeps. If the queries are not trained, the text is."""
        tokens, rows = clip.tokens(layer.downsampling), clip.chunks * clip.frames
        queries = 0 if learns and self.arithmetic.scored(tokens) else layer.channels
        attended = self._attended(layer, tokens, self.text)
        return self.arithmetic.low * rows * (tokens * (attended + queries) + 2 * self.text * layer.channels)

    def _temporal(self, layer: Layer, clip: Clip, learns: bool) -> float:
        """Bytes that the temporal module keeps: inputs of the projections, queries, keys, values, scores or output."""
        low, settings, square = self.arithmetic.low, self.settings, layer.channels**2
        normalized = settings.temporal == "attention" or settings.centering == "layer_norm"
        per_pixel = layer.channels * (self.arithmetic.norms * normalized + (3 + 4 * learns) * low)
        per_pixel += self._attended(layer, clip.frames, clip.frames) * low
        restricted = learns and settings.temporal == "stam" and settings.normalization != "off"
        weights = (4 if settings.normalization_scope == "qkvo" else 2) * FULL * restricted + 4 * low * (low != FULL)
        return clip.pixels(layer.downsampling) * per_pixel + square * weights

    def _running(self, layer: Layer, clip: Clip) -> float:
        """Peak bytes of a layer without gradients, including the features around it."""
        low, pixels, channels = self.arithmetic.low, clip.pixels(layer.downsampling), layer.channels
        if layer.kind != "transformer":
            return low * pixels * {"res": 4 * layer.inputs + channels, "sample": 2 * channels}.get(layer.kind, 0)
        kind, tokens, keys, queries = self._view(layer, clip)
        group = frames_at_once(clip.frames, tokens, keys - tokens, self.arithmetic.device, gradients=False)
        together = clip.chunks * {"ffam": group, "dense": 1}.get(kind, clip.frames)
        scores = 0 if self.arithmetic.fused else 3 * layer.heads * min(queries, QUERY_CHUNK) * keys
        spatial = 8 * channels * pixels + together * (2 * keys * channels + scores)
        temporal = 2 * layer.heads * clip.frames * self.arithmetic.scored(clip.frames) + 8 * channels
        temporal *= self.settings.temporal != "none"
        text = 4 * clip.chunks * clip.frames * self.text * channels  # the prompt, repeated for every frame
        return low * max(RUNNING * channels * pixels + text, spatial, temporal * pixels)
