"""Alpha channels that are unused, all transparent, or of HDR videos."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from ei2.video import read_frames

from .written_video import hdr_greys, textured

RAW = [
    ("rawvideo", "bgra", ".avi"),
    ("rawvideo", "argb", ".mov"),
    ("huffyuv", "bgra", ".avi"),
    ("utvideo", "gbrap", ".avi"),
]


def alpha_file(path: Path, codec: str, pixels: str, alphas: list[int]) -> Path:
    """Textured frames, each with one value in its alpha channel."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        for index, alpha in enumerate(alphas):
            picture = np.dstack([textured(index, 64, 48), np.full((48, 64), alpha, np.uint8)])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgba").reformat(format=pixels)))
        container.mux(stream.encode())
    return path


def expected(count: int) -> torch.Tensor:
    return torch.from_numpy(np.stack([textured(index, 64, 48) for index in range(count)])) / 255


@pytest.mark.parametrize("codec, pixels, suffix", RAW)
def test_an_unused_alpha_means_nothing(tmp_path, codec, pixels, suffix):
    """32-bit RGB of screen recorders: the fourth byte is 0."""
    path = alpha_file(tmp_path / f"v{suffix}", codec, pixels, [0] * 6)
    clip = read_frames(path)
    assert (clip.images - expected(6)).abs().max() < 1.1 / 255 and clip.mask.max() == 0 and not clip.warnings
    padded = read_frames(path, width=64, height=64, fit="pad")
    assert (padded.images[:, 8:-8] - expected(6)).abs().max() < 0.02 and padded.mask.max() == 0


@pytest.mark.parametrize("codec, pixels, suffix", RAW)
def test_a_title_that_fades_in_is_transparent_at_first(tmp_path, codec, pixels, suffix):
    clip = read_frames(alpha_file(tmp_path / f"v{suffix}", codec, pixels, [0, 0, 128, 255]))
    assert clip.mask.mean((1, 2)).tolist() == pytest.approx([1, 1, 127 / 255, 0], abs=1e-3)
    assert clip.images[:2].max() == 0 and not clip.warnings
    assert (clip.images[3] - expected(4)[3]).abs().max() < 1.1 / 255


@pytest.mark.parametrize("codec, pixels, suffix", RAW)
def test_an_opaque_frame_uses_the_alpha_too(tmp_path, codec, pixels, suffix):
    """So the frames before it, whose alpha is 0, are transparent."""
    clip = read_frames(alpha_file(tmp_path / f"v{suffix}", codec, pixels, [0, 0, 255]))
    assert clip.mask.mean((1, 2)).tolist() == [1, 1, 0]


def test_the_alpha_takes_no_level_from_what_is_opaque(tmp_path):
    """All 256 levels: premultiplied in 8 bits, half of them would be one lower."""
    levels = np.arange(256, dtype=np.uint8).repeat(9).reshape(48, 48)
    frames = [Image.fromarray(np.dstack([turned, turned, turned])) for turned in (levels, levels[::-1])]
    frames[0].save(tmp_path / "v.webp", save_all=True, append_images=frames[1:], lossless=True, duration=100)
    clip = read_frames(tmp_path / "v.webp")
    assert torch.equal(clip.images[0].mul(255).round().byte(), torch.from_numpy(np.array(frames[0])))


def test_bars_are_transparent_beside_transparent_frames_only(tmp_path):
    path = alpha_file(tmp_path / "v.apng", "apng", "rgba", [128, 255])
    clip = read_frames(path, width=64, height=64, fit="pad", background=(255, 255, 255))
    for bar in (slice(None, 8), slice(-8, None)):
        assert clip.images[0, bar].min() == 1 and clip.mask[0, bar].min() == 1
        assert clip.images[1, bar].max() == 0 and clip.mask[1].max() == 0


def test_wholly_transparent_frames_are_said(tmp_path):
    path = alpha_file(tmp_path / "v.mov", "png", "rgba", [0, 0, 0, 255])
    clip = read_frames(path, max_frames=3)
    assert clip.mask.min() == 1 and clip.images.max() == 0
    assert len(clip.warnings) == 1 and "'v.mov' is fully transparent in this part" in clip.warnings[0]
    assert not read_frames(path).warnings
    still = alpha_file(tmp_path / "v.apng", "apng", "rgba", [0, 0])
    assert "is fully transparent" in read_frames(still).warnings[0]


@pytest.mark.parametrize("transfer, tag", [("pq", 16), ("hlg", 18)])
@pytest.mark.parametrize("alpha", [1023, 512])
def test_hdr_under_an_alpha_is_mapped_to_sdr(tmp_path, transfer, tag, alpha):
    """The greys 40, 100, 160, 200 of sRGB, written in HDR."""
    grey = np.array([40, 100, 160, 200])
    clip = read_frames(hdr_greys(tmp_path / "v.mkv", grey, transfer, tag, alpha), background=(0, 0, 255))
    share = alpha / 1023
    assert clip.images[:, 32, 32, 0].mul(255).tolist() == pytest.approx((grey * share).tolist(), abs=2)
    assert clip.images[:, 32, 32, 2].mul(255).tolist() == pytest.approx((grey * share + 255 * (1 - share)), abs=2)
    assert clip.mask.mean().item() == pytest.approx(1 - share, abs=0.003) and "HDR" in clip.warnings[0]
