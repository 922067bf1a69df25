"""Long clips through the host's own context windows: what a window sees, and what it shares with the others."""

from __future__ import annotations

import pytest
import torch

from . import long_clip
from .long_clip import ANCHORS, FRAMES, LENGTH, WINDOWS, watched

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]

clip = long_clip.clip
PYRAMID = torch.tensor([1.0, 2.0, 2.0, 1.0]).view(-1, 1, 1, 1)


def blended(windows, results: list[torch.Tensor]) -> torch.Tensor:
    """The host's pyramid: each window's frames weighted by their distance from its ends."""
    total, weights = torch.zeros(FRAMES, *results[0].shape[1:]), torch.zeros(FRAMES, 1, 1, 1)
    for window, result in zip(windows, results):
        total[list(window)] += PYRAMID * result
        weights[list(window)] += PYRAMID
    return total / weights


# what a window is


@pytest.mark.parametrize("preset", ["EI2", "Tune-A-Video", "Per-frame"])
@pytest.mark.parametrize("length", [FRAMES, FRAMES + 3])
def test_a_clip_that_fits_is_not_cut(preset, length, model, inflate, windowed, evaluate, source, clip):
    inflated = inflate(model, preset)
    assert torch.equal(evaluate(windowed(inflated, length), clip, source), evaluate(inflated, clip, source))


@pytest.mark.parametrize("preset", ["Tune-A-Video", "Video-P2P", "Vid2Vid-zero"])
def test_a_window_is_a_video_of_its_own(preset, model, inflate, windowed, evaluate, source, encode, clip):
    """Without FFAM nothing is shared: what the host blends is what each window gives alone, under guidance."""
    inflated = inflate(model, preset)
    arguments = (source, encode("a red circle"), 4.0)
    alone = [evaluate(inflated, clip[list(window)], *arguments) for window in WINDOWS]
    found = evaluate(windowed(inflated), clip, *arguments)
    torch.testing.assert_close(found, blended(WINDOWS, alone), atol=1e-4, rtol=0)


def test_permuted_windows_give_the_same(model, inflate, windowed, evaluate, source, clip):
    """Per frame nothing depends on the company, so windows change nothing at all."""
    inflated = inflate(model, "Per-frame")
    found = evaluate(windowed(inflated), clip, source)
    torch.testing.assert_close(found, evaluate(inflated, clip, source), atol=1e-4, rtol=0)


def test_prompts_per_frame_go_with_their_frames(model, inflate, windowed, evaluate, source, encode, random_clip):
    inflated, clip = inflate(model, "Tune-A-Video"), random_clip(frames=8)
    other = encode("a red circle on a striped blue background")
    texts = torch.cat([source[0][0].expand(4, -1, -1), other[0][0].expand(4, -1, -1)])
    found = evaluate(windowed(inflated, 4, 0, "batched"), clip, [[texts, dict(source[0][1])]])
    halves = [evaluate(inflated, clip[:4], source), evaluate(inflated, clip[4:], other)]
    torch.testing.assert_close(found, torch.cat(halves), atol=1e-4, rtol=0)


def test_a_controlnets_hints_go_with_their_frames(
    model, inflate, windowed, evaluate, control_net, source, encode, random_clip
):
    inflated, clip, empty = inflate(model, "Tune-A-Video"), random_clip(frames=8), encode("")
    steer = control_net[1]
    hints = torch.rand(8, 48, 80, 3, generator=torch.Generator().manual_seed(1))
    batched = windowed(inflated, 4, 0, "batched")
    found = evaluate(batched, clip, *steer(source, empty, hints), 3.0)
    halves = [
        evaluate(inflated, clip[part], *steer(source, empty, hints[part]), 3.0) for part in (slice(4), slice(4, 8))
    ]
    torch.testing.assert_close(found, torch.cat(halves), atol=1e-3, rtol=0)
    first = evaluate(batched, clip, *steer(source, empty, hints[:4].repeat(2, 1, 1, 1)), 3.0)
    assert (first[4:] - found[4:]).abs().max() > 1e-2


@pytest.mark.parametrize("count", [5, 7, 9])
def test_too_few_and_too_many_hints_go_with_their_frames_as_without_windows(
    count, model, inflate, windowed, evaluate, control_net, source, encode, random_clip
):
    """The host repeats or cuts off a ControlNet's pictures. Per frame, windows then change nothing."""
    inflated, clip = inflate(model, "Per-frame"), random_clip(frames=8)
    hints = torch.rand(count, 48, 80, 3, generator=torch.Generator().manual_seed(1))
    prompts = control_net[1](source, encode(""), hints)
    found = evaluate(windowed(inflated, 4, 0, "batched"), clip, *prompts, 3.0)
    torch.testing.assert_close(found, evaluate(inflated, clip, *prompts, 3.0), atol=1e-3, rtol=0)


@pytest.mark.parametrize("overlap", [0, 1, 3])
def test_our_node_gives_what_the_hosts_does(overlap, pack, model, inflate, windowed, evaluate, source, encode, clip):
    inflated = inflate(model)
    ours = pack("nodes.context_windows").ContextWindows.execute(inflated, LENGTH, overlap).args[0]
    arguments = (clip, source, encode("a red circle"), 3.0)
    assert torch.equal(evaluate(ours, *arguments), evaluate(windowed(inflated, LENGTH, overlap), *arguments))
    assert inflated.model_options["transformer_options"] == {}


@pytest.mark.parametrize("fuse", ["flat", "pyramid", "relative", "overlap-linear"])
@pytest.mark.parametrize("schedule", ["standard_static", "standard_uniform", "batched"])
def test_frames_alone_are_the_same_whatever_blends_them(
    schedule, fuse, model, inflate, windowed, evaluate, source, clip
):
    """Every frame gets weights that add up to one."""
    inflated = inflate(model, "Per-frame")
    found = evaluate(windowed(inflated, schedule=schedule, fuse=fuse), clip, source)
    torch.testing.assert_close(found, evaluate(inflated, clip, source), atol=1e-4, rtol=0)


# what windows share


def far_frame(clip: torch.Tensor, frame: int) -> torch.Tensor:
    """The clip with another picture in one frame."""
    changed = clip.clone()
    changed[frame] = changed[frame].flip(-1) + 2
    return changed


@pytest.mark.parametrize("preset, anchor", [("EI2", 8), ("EI2", 4), ("Tune-A-Video", 8)])
def test_anchors_reach_every_window_and_other_frames_do_not(
    preset, anchor, model, inflate, windowed, evaluate, source, clip
):
    """Frames 0 to 2 are in the first window alone; 8 and 4 are anchors outside of it, 7 is not."""
    inflated = windowed(inflate(model, preset))
    plain = evaluate(inflated, clip, source)[:3]
    reached = (evaluate(inflated, far_frame(clip, anchor), source)[:3] - plain).abs().max()
    assert reached > 1e-3 if preset == "EI2" else reached == 0
    assert torch.equal(evaluate(inflated, far_frame(clip, 7), source)[:3], plain)


def test_how_often_the_unet_runs_and_on_what(model, inflate, windowed, evaluate, source, clip):
    calls = []
    inflated = windowed(watched(inflate(model), lambda options, x: calls.append(options["context_window"].index_list)))
    evaluate(inflated, clip, source)
    assert calls == [ANCHORS, *map(list, WINDOWS)]
    calls.clear()
    inflated = windowed(watched(inflate(model, "Tune-A-Video"), lambda o, x: calls.append(o["context_window"])))
    evaluate(inflated, clip, source)
    assert [window.index_list for window in calls] == [list(window) for window in WINDOWS]


def test_prompts_run_together_or_apart_see_their_own_anchors(model, inflate, windowed, evaluate, source, encode, clip):
    """Guidance is linear: with both prompts in one call it gives what they give one by one."""
    inflated, other = windowed(inflate(model)), encode("a red circle on a striped blue background")
    positive, negative = (evaluate(inflated, clip, prompt) for prompt in (source, other))
    guided = evaluate(inflated, clip, source, other, 3.0)
    torch.testing.assert_close(guided, negative + 3.0 * (positive - negative), atol=1e-3, rtol=0)


def test_every_frame_an_anchor_is_the_whole_clip(model, inflate, pack, windowed, evaluate, source, random_clip):
    """Anchors that are the whole clip, and layers that act per frame otherwise: each window's frames see exactly what
    they see in the clip as a whole."""
    from comfy.patcher_extension import WrappersMP

    clip = random_clip(frames=6)
    inflated = inflate(model, temporal="none")
    whole = windowed(inflated, 3, 1)
    windows = pack("host.windows")

    class AllAnchors(windows.VideoWindows):
        """As many anchors as frames, in place of one less than a window has."""

        _anchors = staticmethod(lambda frames, length: list(range(frames)))

    key = pack("host.inflation").KEY
    whole.remove_wrappers_with_key(WrappersMP.CALC_COND_BATCH, key)
    whole.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, key, AllAnchors(True))
    torch.testing.assert_close(evaluate(whole, clip, source), evaluate(inflated, clip, source), atol=1e-4, rtol=0)
