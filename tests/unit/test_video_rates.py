"""The rate of frames whose times are rounded or tremble, and of short parts of them."""

from __future__ import annotations

from fractions import Fraction
from math import sin

import numpy as np
import pytest
import torch

from ei2.video import read_frames

from .written_video import encoded, tone, write_video


@pytest.mark.parametrize("rate", [12, 15, Fraction(24000, 1001), 24, 30])
def test_a_gif_has_times_in_hundredths(tmp_path, rate):
    path = encoded(tmp_path / "v.gif", "gif", 96, rate=rate, pixels="rgb8")
    clip = read_frames(path)
    assert clip.frame_count == 96 and not clip.warnings
    assert clip.fps == clip.source_fps == pytest.approx(float(rate), rel=0.002)
    for start, most in ((0, 8), (20, 24), (90, 0)):
        part = read_frames(path, start, 1, most)
        assert torch.equal(part.images, clip.images[start:][: most or None])
        assert part.fps == pytest.approx(float(rate), rel=0.002) and not part.warnings


@pytest.mark.parametrize("rate", [10, Fraction(25, 2), 20, 25, Fraction(100, 3), 50])
@pytest.mark.parametrize("frames", [3, 10])
def test_equal_durations_of_a_gif_are_exact(tmp_path, rate, frames):
    clip = read_frames(encoded(tmp_path / "v.gif", "gif", frames, rate=rate, pixels="rgb8"))
    assert clip.frame_count == frames and clip.fps == pytest.approx(float(rate), rel=1e-3) and not clip.warnings


@pytest.mark.parametrize("seed", range(4))
def test_short_parts_have_the_rate_of_the_whole(tmp_path, seed):
    """A phone: 30 frames per second, each up to 3 ms early or late."""
    rng = np.random.default_rng(seed)
    times = [index / 30 + rng.uniform(-0.003, 0.003) + 0.01 for index in range(90)]
    path = write_video(tmp_path / "v.mp4", 90, rate=30, times=times)
    whole = read_frames(path)
    for start, most in ((0, 8), (30, 4), (50, 2), (60, 16), (88, 0)):
        part = read_frames(path, start, 1, most)
        assert part.fps == pytest.approx(30, rel=0.01) and not part.warnings
        assert torch.equal(part.images, whole.images[start:][: most or None])


def test_frames_that_come_almost_together(tmp_path):
    """Steps of 3 to 81 ms at 24 frames per second: each frame is there once, at a usual rate."""
    times = [index / 24 + 0.026 * sin(index * 1.7) + 0.05 for index in range(96)]
    path = write_video(tmp_path / "v.mp4", 96, times=times)
    clip = read_frames(path)
    assert clip.frame_count == 96 and clip.fps == pytest.approx(24, rel=0.01) and not clip.warnings
    for start in range(80, 95):
        part = read_frames(path, start)
        assert part.fps == pytest.approx(24, rel=0.01) and torch.equal(part.images, clip.images[start:])


@pytest.mark.parametrize("seed", range(6))
def test_the_mean_step_of_very_unsteady_times_counts(tmp_path, seed):
    """30 frames per second, each up to 8 ms early or late: the median step is often that of 29."""
    rng = np.random.default_rng(seed)
    times = [index / 30 + rng.uniform(-0.008, 0.008) + 0.01 for index in range(96)]
    clip = read_frames(write_video(tmp_path / "v.mkv", 96, rate=30, times=times))
    assert clip.frame_count == 96 and clip.fps == pytest.approx(30, rel=0.01) and not clip.warnings


def test_no_part_has_an_impossible_rate(tmp_path):
    """Two frames 0.2 ms apart, in a file without an even rate."""
    times = [0, 1000, 2000, 9000, 15000, 15002, 30000]  # 0.1 ms
    path = encoded(tmp_path / "v.mp4", "libx264", 7, {"bf": "0"}, lambda number: times[number] - number, rate=10000)
    assert read_frames(path, 4, 1, 1).fps <= 1000


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_a_long_still_picture_is_no_jump_of_the_clock(tmp_path, suffix):
    """Twelve seconds without a new frame, and the sound has ended."""
    times = [index / 24 + (12 if index >= 24 else 0) for index in range(48)]
    path = write_video(tmp_path / f"v{suffix}", 48, times=times, sound=tone(1.0))
    clip = read_frames(path)
    assert clip.frame_count == 48 + 288 and clip.fps == pytest.approx(24) and clip.end_seconds == pytest.approx(14.0)
    assert len(clip.warnings) == 1 and "288 of them repeated" in clip.warnings[0]
    assert torch.equal(clip.images[23].expand(289, -1, -1, -1), clip.images[23:312])
