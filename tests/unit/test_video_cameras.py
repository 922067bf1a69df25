"""What cameras write: DV and its interlaced fields, EXIF, and every way in which a phone turns or mirrors a picture."""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from ei2.video import read_frames

from .written_video import level, levels, quadrants, write_video


@pytest.mark.parametrize("size, rate", [((720, 576), 25), ((720, 480), Fraction(30000, 1001))])
def test_raw_dv_of_a_camcorder(tmp_path, size, rate):
    pixels = "yuv420p" if rate == 25 else "yuv411p"
    with av.open(str(tmp_path / "v.dv"), "w", format="dv") as container:
        stream = container.add_stream("dvvideo", rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        for index in range(20):
            grey = np.full((size[1], size[0], 3), round(level(index) * 255), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, "rgb24").reformat(format=pixels)))
        container.mux(stream.encode())
    clip = read_frames(tmp_path / "v.dv", width=96, height=64)
    assert clip.frame_count == 20 and clip.fps == pytest.approx(float(rate), rel=1e-3)
    assert levels(clip.images) == pytest.approx([level(index) for index in range(20)], abs=3 / 255)
    late = read_frames(tmp_path / "v.dv", 10, 1, 3, width=96, height=64)
    assert torch.allclose(late.images, clip.images[10:13], atol=1e-6)


def test_fields_of_different_times_are_made_one_picture(tmp_path):
    """A white bar that moves 8 pixels between the two fields, in DV, whose frames are always interlaced."""
    with av.open(str(tmp_path / "v.dv"), "w", format="dv") as container:
        stream = container.add_stream("dvvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = 720, 576, "yuv420p"
        for index in range(8):
            picture = np.zeros((576, 720, 3), np.uint8)
            for field in (0, 1):
                left = 100 + 16 * index + 8 * (1 - field)  # the lower field comes first
                picture[field::2, left : left + 60] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv420p")))
        container.mux(stream.encode())
    grey = read_frames(tmp_path / "v.dv").images[3, 100:-100].mean(2)
    comb = (grey[1:-1] - (grey[:-2] + grey[2:]) / 2).abs()
    assert (comb > 0.5).float().mean() < 0.001  # before the filter, all rows at both edges


@pytest.mark.parametrize(
    "matrix, wanted",
    [
        ((1, 0, 0, 1), "RGBW"),
        ((-1, 0, 0, 1), "GRWB"),
        ((1, 0, 0, -1), "BWRG"),
        ((-1, 0, 0, -1), "WBGR"),
        ((0, 1, -1, 0), "BRWG"),
        ((0, -1, 1, 0), "GWRB"),
        ((0, 1, 1, 0), "RBGW"),
        ((0, -1, -1, 0), "WGBR"),
    ],
)
def test_all_eight_display_matrices(tmp_path, matrix, wanted):
    path = write_video(tmp_path / "v.mp4", 2, (128, 64), picture=quadrants)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value * 0x10000 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 0x40000000)
    path.write_bytes(data)
    image = read_frames(path).images[0].round().int()
    names = {(1, 0, 0): "R", (0, 1, 0): "G", (0, 0, 1): "B", (1, 1, 1): "W"}
    found = "".join(names[tuple(image[y, x].tolist())] for y, x in ((4, 4), (4, -5), (-5, 4), (-5, -5)))
    assert found == wanted


def jpeg(orientation: int) -> bytes:
    """A JPEG with EXIF, as cameras write it. orientation: EXIF's, 1 (upright) to 8."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112], exif[0x010F] = orientation, "a camera"
    Image.fromarray(quadrants(0, 128, 64)).save(file, "JPEG", quality=95, subsampling=0, exif=exif)
    return file.getvalue()


def time_lapse(path: Path, orientation: int) -> Path:
    """Ten pictures as a video, without encoding them again."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=24)
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuvj444p"
        for index in range(10):
            packet = av.Packet(jpeg(orientation))
            packet.stream, packet.time_base = stream, Fraction(1, 24)
            packet.pts = packet.dts = index
            packet.duration, packet.is_keyframe = 1, True
            container.mux(packet)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".avi", ".mov", ".jpg.mp4"])
def test_pictures_with_exif(tmp_path, orientation, suffix):
    path = tmp_path / f"v{suffix}"
    if suffix == ".jpg.mp4":
        path.write_bytes(jpeg(orientation))  # a picture under the name of a video
    else:
        time_lapse(path, orientation)
    clip = read_frames(path)
    assert clip.frame_count == (1 if suffix == ".jpg.mp4" else 10) and not clip.warnings
    wanted = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(jpeg(orientation)))))
    assert clip.images[-1].shape == wanted.shape
    assert (clip.images[-1] * 255 - torch.from_numpy(wanted.copy())).abs().max() < 12


def test_a_tiff_named_as_a_video(tmp_path):
    Image.fromarray(quadrants(0, 128, 64)).save(tmp_path / "v.mp4", "TIFF")
    wanted = torch.from_numpy(quadrants(0, 128, 64)) / 255
    assert (read_frames(tmp_path / "v.mp4").images[0] - wanted).abs().max() < 0.01
