"""The memory estimate on a UNet small enough to be counted by hand. Against real runs:
`tests/host/test_memory_kept.py`."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ei2.memory_estimate import Arithmetic, Clip, Estimate, Layer, UNetShape
from ei2.settings import PRESETS

BLOCK = Layer("transformer", 8, 1.0, heads=2, depth=1, dense=True, weights=100)
OUT = Layer("out", 8, 1.0)
SMALL = UNetShape((Layer("res", 8, 1.0, inputs=8, weights=50), Layer("skip", 8, 1.0), BLOCK, OUT), weight_bytes=400)
GPU = Arithmetic(torch.device("cuda"), low=2, norms=4)
CPU = Arithmetic(torch.device("cpu"), low=2, norms=2, fused=False)
CLIP = Clip(frames=2, height=4, width=4)


def estimate(preset="EI2", arithmetic=GPU, shape=SMALL, **options) -> Estimate:
    return Estimate(shape, replace(PRESETS[preset], **options), arithmetic)


def test_counted_by_hand():
    """32 pixels in all, 8 channels: 256 numbers to a feature map; nothing is trained before the transformer."""
    around = 256 * 4 + 2 * 256 * 2  # its norm and projections
    self_attention = 4 * 256 * 2  # queries, keys, values, output
    cross_attention = 2 * 256 * 2 + 2 * 2 * 77 * 8 * 2  # queries, output; keys and values of the text for each frame
    block = 3 * 256 * 4 + 2 * 256 * 2 + 12 * 256 * 2  # norms, inputs of two projections, feed-forward
    additions = 2 * 64 * 2  # to the query projections, cast to 16 bits
    end = 2 * 256 * 4 + 256 * 2  # norm and SiLU, convolution
    need = estimate("Per-frame").training(CLIP, checkpointing=False)
    assert need.kept == around + self_attention + cross_attention + block + additions + end
    assert need.learned == 2 * 64 * 16 and need.weights == 400
    kept = estimate("Per-frame").training(CLIP, checkpointing=True).kept
    assert kept == around + 256 * 2 + end  # the block's input


def test_a_trained_resblock_keeps_its_norms_and_convolutions():
    layers = (BLOCK, Layer("res", 16, 1.0, inputs=8, weights=50), Layer("sample", 16, 1.0, weights=10))
    more = estimate("Per-frame", shape=replace(SMALL, layers=layers)).training(CLIP, False).kept
    less = estimate("Per-frame", shape=replace(SMALL, layers=layers[:1])).training(CLIP, False).kept
    assert more - less == 32 * ((8 + 16) * (4 + 4 + 2) + 8 * 2) + 32 * 16 * 2


def test_cast_weights_are_kept_but_for_checkpointing():
    plain, casting = (estimate(arithmetic=replace(GPU, casts=casts)) for casts in (False, True))
    kept = lambda one, checkpointing: one.training(CLIP, checkpointing).kept
    assert kept(casting, False) - kept(plain, False) == 100 * 2 + 2 * 64 * 2  # of block and linears
    assert kept(casting, True) - kept(plain, True) == 2 * 64 * 2


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("arithmetic", [GPU, CPU], ids=["gpu", "cpu"])
def test_checkpointing_keeps_less_and_more_frames_keep_more(preset, arithmetic):
    one, longer = estimate(preset, arithmetic), replace(CLIP, frames=8)
    assert one.training(CLIP, True).kept < 0.5 * one.training(CLIP, False).kept
    for need in (lambda clip: one.training(clip, False), lambda clip: one.training(clip, True), one.inference):
        assert need(longer).total > need(CLIP).total
    assert one.inference(CLIP).total < one.training(CLIP, True).total
    assert one.inference(replace(CLIP, chunks=2)).working == pytest.approx(2 * one.inference(CLIP).working, rel=0.01)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_another_frame_never_needs_less(checkpointing):
    """In the sizes of SDXL, where FFAM changes its way with the number of frames."""
    layers = tuple(Layer("transformer", 1280, down, heads=20, depth=10) for down in (4.0, 2.0))
    one = estimate(shape=UNetShape((*layers, OUT), 400))
    totals = [one.training(Clip(frames, 96, 96), checkpointing).total for frames in range(1, 41)]
    assert totals == sorted(totals)


def test_plain_attention_keeps_its_scores():
    """Frames see each other's coarse tokens: 16 + 4 keys for each of 32 queries, two heads. Only in half precision."""
    fused, plain = (estimate(arithmetic=replace(CPU, device=torch.device(kind))) for kind in ("cuda", "cpu"))
    more = plain.training(CLIP, False).kept - fused.training(CLIP, False).kept
    self_attention, cross_attention, temporal = 2 * 20 - 8, 2 * 77 - 8 - 8, 2 * 2 - 8
    assert more == 2 * 32 * (self_attention + cross_attention + temporal)
    fused, full = (estimate(arithmetic=replace(CPU, low=4, device=torch.device(kind))) for kind in ("cuda", "cpu"))
    assert full.training(CLIP, False).kept == fused.training(CLIP, False).kept


def test_how_many_frames_fit():
    one = estimate()
    need = lambda clip: one.training(clip, True)
    for limit in (20_000, 1_000_000):
        most = one.frames_that_fit(CLIP, limit, need)
        assert need(replace(CLIP, frames=most)).total <= limit < need(replace(CLIP, frames=most + 1)).total
    assert one.frames_that_fit(CLIP, 100, need) == 0
