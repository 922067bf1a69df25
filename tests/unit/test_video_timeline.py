"""Which frames a video has, and from where: after late starts, joins, jumps of its clock, pauses, holes and cuts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ei2.video import read_frames

from .written_video import encoded, levels, write_video

GOP = {"g": "12", "bf": "2"}


@pytest.mark.parametrize(
    "codec, suffix, options, bframes",
    [
        ("libx264", ".mp4", GOP, 0),
        ("libx264", ".mkv", GOP, 0),
        ("libx264", ".ts", GOP, 0),
        ("libx264", ".flv", GOP, 0),
        ("libx264", ".mov", {"g": "12", "bf": "3", "x264-params": "open-gop=1"}, 0),
        ("libx264", ".mp4", {"g": "60", "x264-params": "intra-refresh=1"}, 0),
        ("libx265", ".mp4", {"g": "12", "x265-params": "log-level=error"}, 0),
        ("mpeg2video", ".mpg", {"g": "12"}, 2),
        ("mpeg2video", ".m2ts", {"g": "12"}, 2),
        ("mpeg2video", ".mxf", {"g": "12"}, 0),
        ("mpeg4", ".mp4", {"g": "12"}, 2),
        ("mpeg4", ".avi", {"g": "12"}, 0),
        ("libvpx", ".webm", {"g": "12"}, 0),
        ("libvpx-vp9", ".webm", {"g": "12"}, 0),
        ("mjpeg", ".mov", {}, 0),
        ("gif", ".gif", {}, 0),
        ("apng", ".apng", {}, 0),
        ("libwebp_anim", ".webp", {"lossless": "1"}, 0),
    ],
)
def test_a_late_start_gives_the_frames_of_a_whole_reading(tmp_path, codec, suffix, options, bframes):
    pixels = {"mjpeg": "yuvj420p", "gif": "rgb8", "apng": "rgb24", "libwebp_anim": "bgra"}.get(codec, "yuv420p")
    path = encoded(tmp_path / f"v{suffix}", codec, 60, options, pixels=pixels, bframes=bframes)
    whole = read_frames(path)
    assert whole.frame_count == 60 and whole.fps == pytest.approx(25) and not whole.warnings
    for start, stride, most in ((1, 1, 2), (12, 1, 3), (37, 2, 5), (49, 1, 0), (59, 1, 1)):
        part = read_frames(path, start, stride, most)
        wanted = whole.images[start::stride][: most or None]
        assert torch.equal(part.images, wanted), (start, stride, most)
        assert part.fps == pytest.approx(25 / stride) and part.start_seconds == pytest.approx(start / 25, abs=0.002)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".mov", ".flv"])
def test_a_late_start_does_not_decode_from_the_beginning(tmp_path, suffix):
    path = encoded(tmp_path / f"v{suffix}", "libx264", 600, {"g": "25"})
    seen: list[int] = []
    clip = read_frames(path, 555, 1, 4, on_frame=lambda done, expected: seen.append(done))
    assert clip.frame_count == 4 and max(seen) < 50


@pytest.mark.parametrize(
    "suffix, codec",
    [(".ts", "libx264"), (".ts", "mpeg2video"), (".mpg", "mpeg2video"), (".h264", "libx264"), (".m2ts", "libx264")],
)
def test_recordings_joined_byte_by_byte(tmp_path, suffix, codec):
    first = encoded(tmp_path / f"a{suffix}", codec, 30, GOP).read_bytes()
    second = encoded(tmp_path / f"b{suffix}", codec, 20, GOP).read_bytes()
    (tmp_path / f"ab{suffix}").write_bytes(first + second)
    clip = read_frames(tmp_path / f"ab{suffix}")
    assert clip.frame_count == 50 and clip.fps == pytest.approx(25)
    assert levels(clip.images[30:]) == pytest.approx(levels(read_frames(tmp_path / f"b{suffix}").images), abs=0.02)


@pytest.mark.parametrize("suffix", [".ts", ".flv", ".mkv"])
def test_a_clock_that_jumps_an_hour_or_two(tmp_path, suffix):
    path = encoded(tmp_path / f"v{suffix}", "libx264", 40, {"bf": "0"}, lambda n: 25 * 7300 if n >= 20 else 0)
    clip = read_frames(path)
    assert clip.frame_count == 40 and clip.fps == pytest.approx(25) and "jumps 1 time," in clip.warnings[0]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_pause_is_filled(tmp_path, suffix):
    path = encoded(tmp_path / f"v{suffix}", "libx264", 40, {"bf": "0"}, lambda n: 50 if n >= 20 else 0)
    clip = read_frames(path)
    assert clip.fps == pytest.approx(25) and clip.frame_count == 90 and "50 of them repeated" in clip.warnings[0]
    assert torch.equal(clip.images[19].expand(51, -1, -1, -1), clip.images[19:70])
    assert not torch.equal(clip.images[69], clip.images[70])


def test_times_that_tremble_are_no_variable_rate(tmp_path):
    rng = np.random.default_rng(0)
    times = [index / 30 + rng.uniform(-0.004, 0.004) + 0.01 for index in range(60)]
    clip = read_frames(write_video(tmp_path / "v.mkv", 60, rate=30, times=times))
    assert clip.frame_count == 60 and clip.fps == pytest.approx(30, rel=0.01) and not clip.warnings


def test_hidden_frames_of_vp8_are_no_frames(tmp_path):
    options = {"auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "good", "arnr-maxframes": "7", "b": "60k"}
    path = encoded(tmp_path / "v.webm", "libvpx", 80, options)
    clip = read_frames(path)
    assert clip.frame_count == 80 and clip.fps == pytest.approx(25)


def test_a_hole_in_the_middle_moves_nothing(tmp_path):
    """Frames counted from 0 are the same, whether or not earlier ones are there."""
    path = encoded(tmp_path / "v.mkv", "libx264", 57, {"g": "12", "bf": "0"}, lambda n: 3 if n >= 20 else 0)
    whole = read_frames(path)
    assert whole.frame_count == 60 and whole.fps == pytest.approx(25) and "3 of them repeated" in whole.warnings[0]
    late = read_frames(path, 40, 2, 5)
    assert torch.equal(late.images, whole.images[40:50:2]) and late.start_seconds == pytest.approx(1.6)
    with pytest.raises(ValueError, match="which has 60 frames: use 0 to 59"):
        read_frames(path, 60)


@pytest.mark.parametrize("suffix", [".ts", ".mkv", ".mpg"])
def test_a_recording_that_begins_or_ends_in_the_middle(tmp_path, suffix):
    codec = "mpeg2video" if suffix == ".mpg" else "libx264"
    data = encoded(tmp_path / f"v{suffix}", codec, 100, {"g": "12"}).read_bytes()
    (tmp_path / f"end{suffix}").write_bytes(data[: len(data) * 2 // 3])
    assert 50 < read_frames(tmp_path / f"end{suffix}").frame_count < 90
    if suffix != ".mkv":
        (tmp_path / f"begin{suffix}").write_bytes(data[len(data) // 3 :])
        assert 50 < read_frames(tmp_path / f"begin{suffix}").frame_count < 90


def test_a_gif_that_is_cut_off_gives_what_is_there(tmp_path):
    data = encoded(tmp_path / "v.gif", "gif", 30, pixels="rgb8").read_bytes()
    (tmp_path / "cut.gif").write_bytes(data[: len(data) // 2])
    clip = read_frames(tmp_path / "cut.gif")
    assert 5 < clip.frame_count < 30 and clip.warnings
