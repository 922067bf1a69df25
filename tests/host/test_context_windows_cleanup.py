"""What context windows hold while they work, and that nothing of it stays behind."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import pytest
import torch

from . import long_clip
from .long_clip import ANCHORS, WINDOWS, watched

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]

clip, tuned = long_clip.clip, long_clip.tuned


class Cancelled(Exception):
    pass


def test_coarse_tokens_live_for_one_noise_level(model, inflate, windowed, invert, source, clip, pack):
    """Each noise level has its own; behind it they are empty, and behind the sampling gone."""
    name, stores, full = pack("host.windows").WHOLE_CLIP, [], []

    def see(options, x):
        store = options[name]
        if store not in [known() for known in stores]:
            assert all(known() is None or known().bytes == 0 for known in stores)
            stores.append(weakref.ref(store))
        if not store.recording:
            full.append(store.bytes)

    invert(windowed(watched(inflate(model), see)), clip, source, 4)
    assert len(stores) == 4 and len(full) == 4 * len(WINDOWS) and min(full) == max(full) > 0
    gc.collect()
    assert all(store() is None for store in stores)


def test_coarse_tokens_take_what_the_formula_says(model, inflate, windowed, evaluate, source, encode, clip, pack):
    """Per prompt and block, keys and values of each anchor's ⌈h/2⌉ ⌈w/2⌉ tokens."""
    name, found = pack("host.windows").WHOLE_CLIP, []
    blocks = pack("host.unet").transformer_blocks(model.model.diffusion_model)
    spy = watched(inflate(model), lambda options, x: found.append(options[name].bytes))
    evaluate(windowed(spy), clip, source, encode(""), 3.0)
    coarse = {1.0: 3 * 5, 2.0: 2 * 3, 4.0: 1 * 2}  # of 6 x 10, 3 x 5 and 2 x 3 tokens
    expected = sum(2 * 2 * len(ANCHORS) * coarse[block.downsampling] * block.channels * 4 for block in blocks)
    assert found[-1] == expected
    memory = pack("host.memory")
    estimated = memory.inference_estimate(inflate(model), source)
    anchors = replace(memory.clip_of(clip[: len(ANCHORS)]), chunks=2)
    assert estimated.shared(anchors) == expected


def test_cancelling_leaves_nothing(tuned, windowed, evaluate, source, clip, pack):
    model, stores = windowed(tuned[0]), []
    name = pack("host.windows").WHOLE_CLIP
    expected = evaluate(model, clip, source)
    handler = model.model_options["context_handler"]

    def fail_at(call: int):
        def see(options, x):
            stores.append(options[name])
            if len(stores) == call:
                raise Cancelled

        return see

    for call in (1, 3):  # among the anchors, in the second window
        stores.clear()
        with pytest.raises(Cancelled):
            evaluate(watched(model, fail_at(call)), clip, source)
        assert len(stores) == call and stores[-1].bytes == 0
    assert model.model_options["context_handler"] is handler and not handler.callbacks
    assert name not in model.model_options["transformer_options"]
    assert not any("forward" in vars(module) or module._forward_hooks for module in model.model.modules())
    assert torch.equal(evaluate(model, clip, source), expected)


def test_the_hosts_interruption_between_windows(tuned, windowed, invert, source, clip):
    import comfy.model_management as management

    model = windowed(tuned[0])
    expected = invert(model, clip, source, 2)[0].noise
    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException):
        invert(model, clip, source, 2)
    assert not management.processing_interrupted()
    assert torch.equal(invert(model, clip, source, 2)[0].noise, expected)


def test_memory_does_not_grow_with_the_clip(model, inflate, windowed, evaluate, source, encode, random_clip):
    """Beyond the latents themselves, four times the frames need nothing more; all at once, far more."""
    from benchmarks.longclips.scores import LiveTensors

    def peak(model, frames: int) -> int:
        with LiveTensors() as live:
            evaluate(model, random_clip(frames, 4, 8), source, encode(""), 3.0)
        return live.peak

    inflated, latents = inflate(model), 4 * 4 * 8 * 4
    evaluate(inflated, random_clip(2, 4, 8), source)  # loaded
    short, long = (peak(windowed(inflated), frames) for frames in (8, 32))
    assert long - short < 24 * 16 * latents
    assert long - short < 0.25 * short
    assert peak(inflated, 32) > 3 * short
