"""Windows of a long clip, and the coarse tokens they share."""

from __future__ import annotations

from collections import Counter
from random import Random

import numpy as np
import pytest
import torch

from ei2.windows import CoarseTokens, draw_window, pyramid_weights, spread_frames, static_windows


def test_windows_are_drawn_uniformly_and_lie_within_the_clip():
    draws = Random(0)
    windows = [draw_window(10, 4, draws) for _ in range(7000)]
    starts = Counter(window.start for window in windows)
    assert all(window.stop - window.start == 4 for window in windows)
    assert set(starts) == set(range(7)) and all(abs(count - 1000) < 150 for count in starts.values())


def test_windows_follow_from_the_seed():
    several = lambda seed: [draw_window(50, 8, draws).start for draws in [Random(seed)] for _ in range(20)]
    assert several(3) == several(3) != several(4)


@pytest.mark.parametrize("length", [5, 6, 100])
def test_a_short_clip_is_seen_whole(length):
    assert draw_window(5, length, Random(0)) == slice(0, 5)


@pytest.mark.parametrize("frames, count", [(48, 7), (240, 11), (9, 8), (5, 5), (5, 9), (2, 2), (100, 2)])
def test_frames_are_spread_over_the_whole_clip(frames, count):
    found = spread_frames(frames, count)
    assert len(found) == min(count, frames) and found[0] == 0 and found[-1] == frames - 1
    gaps = np.diff(found)
    assert gaps.min() >= 1 and gaps.max() - gaps.min() <= 1


def test_one_frame_is_the_middle_one():
    assert spread_frames(9, 1) == [4]


def test_tokens_come_back_by_place_in_any_company():
    """The host may run two prompts in one batch at one time and apart at another."""
    tokens = CoarseTokens([0, 5, 9])
    k, v = torch.arange(96.0).view(2, 6, 4, 2).unbind()  # two prompts' three frames of four tokens, two channels
    tokens.keep(["a", "b"], k, v)
    assert tokens.of(["a", "c"]) is None
    for place, half in (("a", slice(0, 3)), ("b", slice(3, 6))):
        found_k, found_v = tokens.of([place])
        assert torch.equal(found_k, k[half][None]) and torch.equal(found_v, v[half][None])
    both_k, _ = tokens.of(["b", "a"])
    assert torch.equal(both_k, torch.stack([k[3:], k[:3]]))
    assert tokens.bytes == k.numel() * 4 + v.numel() * 4


def test_tokens_do_not_hold_on_to_what_they_were_cut_from():
    tokens, k = CoarseTokens([0]), torch.zeros(2, 4, 2)
    tokens.keep(["a", "b"], k, k)
    assert all(t.untyped_storage().nbytes() == 4 * 2 * 4 for t in tokens.of(["a"]))
    kept = [t for place in tokens._kept.values() for t in place]
    assert all(t.untyped_storage().nbytes() == 4 * 2 * 4 for t in kept)


def test_which_frames_are_their_own_anchor():
    assert CoarseTokens([0, 5, 9]).own([4, 5, 6, 9, 0]) == [None, 1, None, 2, 0]


def test_clearing_frees_everything():
    tokens = CoarseTokens([0])
    tokens.keep(["a"], torch.zeros(1, 4, 2), torch.zeros(1, 4, 2))
    tokens.clear()
    assert tokens.bytes == 0 and tokens.of(["a"]) is None


@pytest.mark.parametrize(
    "frames, length, overlap, starts",
    [
        (9, 4, 1, [0, 3, 5]),
        (8, 4, 0, [0, 4]),
        (9, 4, 0, [0, 4, 5]),
        (10, 4, 2, [0, 2, 4, 6]),
        (4, 4, 1, [0]),
        (5, 4, 3, [0, 1]),
    ],
)
def test_static_windows_cover_the_clip(frames, length, overlap, starts):
    windows = static_windows(frames, length, overlap)
    assert windows == [list(range(start, start + length)) for start in starts]
    assert {frame for window in windows for frame in window} == set(range(frames))


def test_a_window_counts_most_in_its_middle():
    assert pyramid_weights(4) == [1, 2, 2, 1] and pyramid_weights(5) == [1, 2, 3, 2, 1] and pyramid_weights(1) == [1]
