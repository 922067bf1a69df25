"""Colours of video files, by the standards' own definitions."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch

from ei2.video import read_frames

from .written_video import hdr_greys

MATRICES = {"bt709": (0.2126, 0.0722, 1), "bt601": (0.299, 0.114, 6), "bt2020": (0.2627, 0.0593, 9)}
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 120, 40), (30, 90, 160)]


def encode_colour(rgb, matrix: str, full: bool) -> list[int]:
    """8-bit Y, Cb, Cr of a colour by the definition of ITU-R BT.601, BT.709 and BT.2020."""
    red_share, blue_share, _ = MATRICES[matrix]
    red, green, blue = (value / 255 for value in rgb)
    luma = red_share * red + (1 - red_share - blue_share) * green + blue_share * blue
    blueness, redness = (blue - luma) / 2 / (1 - blue_share), (red - luma) / 2 / (1 - red_share)
    if full:
        return [min(255, round(value)) for value in (luma * 255, 128 + 255 * blueness, 128 + 255 * redness)]
    return [round(value) for value in (16 + 219 * luma, 128 + 224 * blueness, 128 + 224 * redness)]


def write_colours(path: Path, matrix: str, full: bool, tagged: bool, size=(64, 64)) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        if tagged:
            stream.codec_context.colorspace = MATRICES[matrix][2]
            stream.codec_context.color_range = 2 if full else 1
        for colour in COLOURS:
            frame = av.VideoFrame(*size, "yuv420p")
            for plane, value in zip(frame.planes, encode_colour(colour, matrix, full)):
                plane.update(bytes([value]) * plane.buffer_size)
            if tagged:
                frame.colorspace, frame.color_range = MATRICES[matrix][2], 2 if full else 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def worst_error(path: Path, **size) -> float:
    """Largest difference from `COLOURS`, in 8-bit steps."""
    images = read_frames(path, **size).images[:, 10, 10] * 255
    return (images - torch.tensor(COLOURS, dtype=torch.float32)).abs().max().item()


@pytest.mark.parametrize("matrix", list(MATRICES))
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("size", [{}, {"width": 32, "height": 32}])
def test_tagged_colours_come_back(tmp_path, matrix, full, suffix, size):
    assert worst_error(write_colours(tmp_path / f"v{suffix}", matrix, full, tagged=True), **size) <= 1.5


@pytest.mark.parametrize("size, matrix, other", [((64, 64), "bt601", "bt709"), ((1280, 720), "bt709", "bt601")])
def test_untagged_colours_follow_the_size(tmp_path, size, matrix, other):
    assert worst_error(write_colours(tmp_path / "a.mp4", matrix, False, False, size), width=32, height=32) <= 1.5
    assert worst_error(write_colours(tmp_path / "b.mp4", other, False, False, size), width=32, height=32) > 8


@pytest.mark.parametrize("transfer, tag", [("pq", 16), ("hlg", 18)])
def test_greys_of_hdr_become_those_of_sdr(tmp_path, transfer, tag):
    grey = np.array([10, 40, 100, 160, 200])  # 10 lies where the straight part of sRGB's curve ends
    clip = read_frames(hdr_greys(tmp_path / "v.mkv", grey, transfer, tag))
    assert clip.images[:, 32, 32].mul(255).flatten().tolist() == pytest.approx(np.repeat(grey, 3).tolist(), abs=2)
    assert any("HDR" in one for one in clip.warnings)


def test_wide_colours_of_sdr_become_those_of_bt709(tmp_path):
    """A BT.709 red, written with BT.2020's primaries."""
    with av.open(str(tmp_path / "v.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "bgr0"
        stream.codec_context.color_primaries = 9
        linear = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]) @ [1, 0, 0]
        picture = np.tile(np.round(255 * linear ** (1 / 2.4)).astype(np.uint8), (64, 64, 1))
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="bgr0")))
        container.mux(stream.encode())
    assert (read_frames(tmp_path / "v.mkv").images[0, 30, 30] - torch.tensor([1.0, 0.0, 0.0])).abs().max() < 0.12
