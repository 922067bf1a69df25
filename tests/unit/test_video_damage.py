"""Files that are cut off or broken: what is there is read, and the rest is said."""

from __future__ import annotations

import re
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from ei2.video import read_frames

from .test_video_sound_tracks import sound_file
from .written_video import break_packets, copied, encoded, tone


@pytest.mark.parametrize(
    "suffix, codec, message",
    [
        (".mkv", "libx264", r"is damaged or cut off: only the first \d\.\d of 4\.0 seconds could be read\.$"),
        (".webm", "libvpx", r"is damaged or cut off: only the first \d\.\d of 4\.0 seconds could be read\.$"),
        (".mxf", "mpeg2video", r"is damaged or cut off: only the first \d\.\d of 4\.0 seconds could be read\.$"),
        (".ogv", "libvpx", r"is cut off at its end; the frames before were loaded\.$"),
    ],
)
def test_a_file_that_is_cut_off(tmp_path, suffix, codec, message):
    options = {"bf": "0"} if codec == "libx264" else {}
    path = encoded(tmp_path / f"v{suffix}", codec, 100, {"g": "12", **options})
    whole = read_frames(path)
    assert whole.frame_count == 100 and not whole.warnings
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    clip = read_frames(path)
    assert 10 < clip.frame_count < 90 and torch.equal(clip.images[:-1], whole.images[: clip.frame_count - 1])
    assert len(clip.warnings) == 1 and re.search(message, clip.warnings[0])


def test_a_recording_without_a_duration_is_whole(tmp_path):
    """A live recording has no duration in its header. FFmpeg then estimates one from the sound's bit rate."""
    path = sound_file(tmp_path / "v.mkv", [("stereo", tone(1.0))], codec="ac3", bit_rate=32000, pictures="mpeg4")
    data = path.read_bytes()
    at = data.index(b"\x44\x89\x88")  # EBML: Duration, 8 bytes long
    path.write_bytes(data[:at] + b"\xec\x89" + data[at + 2 :])  # Void
    with av.open(str(path)) as container:
        assert container.duration > 1.4 * av.time_base
    clip = read_frames(path)
    assert clip.frame_count == 25 and not clip.warnings


@pytest.mark.parametrize("codec, options", [("libx264", {"bf": "2"}), ("libx265", {"x265-params": "log-level=error"})])
def test_lost_frames_at_the_end_are_said(tmp_path, codec, options):
    """The decoder drops a broken last packet, and the frames that depend on it, without an error."""
    path = encoded(tmp_path / "v.mp4", codec, 48, {"g": "48", **options})
    whole = read_frames(path)
    break_packets(path, [-1])
    clip = read_frames(path)
    lost = sum(torch.equal(clip.images[index], clip.images[index - 1]) for index in range(1, 48))
    assert clip.frame_count == 48 and lost and torch.equal(clip.images[: 48 - lost], whole.images[: 48 - lost])
    frames = "1 frame could not be decoded and was" if lost == 1 else f"{lost} frames could not be decoded and were"
    assert clip.warnings == (f"'v.mp4' is damaged: {frames} replaced by the frame before.",)


@pytest.mark.parametrize("start, most", [(0, 0), (0, 24), (20, 8), (40, 0)])
def test_hidden_packets_are_no_lost_frames(start, most):
    """VP8 from two passes has packets that are decoded, but not shown, with the time of the packet after them."""
    path = Path(__file__).parent / "videos" / "hidden_vp8.webm"
    whole, clip = read_frames(path), read_frames(path, start, 1, most)
    assert whole.frame_count == 48 and clip.fps == pytest.approx(24) and not clip.warnings
    assert torch.equal(clip.images, whole.images[start:][: most or None])


def test_a_packet_without_a_picture_is_no_lost_frame(tmp_path):
    """One that only marks a position, half a frame after the 20th."""
    source = encoded(tmp_path / "whole.mkv", "libx265", 60, {"x265-params": "log-level=error:bframes=0"})
    delimiter = b"\x00\x00\x00\x03\x46\x01\x50"  # H.265, NAL type 35
    with av.open(str(source)) as before, av.open(str(tmp_path / "v.mkv"), "w") as container:
        track = container.add_stream_from_template(before.streams.video[0])
        for number, packet in enumerate(one for one in before.demux() if one.size):
            packet.stream = track
            pts, base = packet.pts, packet.time_base
            container.mux(packet)
            if number == 19:
                extra = av.Packet(delimiter)
                extra.stream, extra.time_base = track, base
                extra.pts = extra.dts = pts + 20  # ms
                container.mux(extra)
    clip = read_frames(tmp_path / "v.mkv")
    assert torch.equal(clip.images, read_frames(source).images) and clip.fps == pytest.approx(25) and not clip.warnings


def cut_after_the_index(folder: Path, readable: int) -> Path:
    """60 keyframes of noise, of which the last of `readable` is complete."""
    noise = np.random.default_rng(0)
    picture = lambda index, width, height: noise.integers(0, 255, (height, width, 3), dtype=np.uint8)
    source = encoded(folder / "whole.mp4", "libx264", 60, {"g": "1"}, picture=picture)
    copied(source, folder / "v.mp4", options={"movflags": "faststart"})
    with av.open(str(folder / "v.mp4")) as container:
        ends = [packet.pos + packet.size for packet in container.demux() if packet.size]
    data = (folder / "v.mp4").read_bytes()
    (folder / "v.mp4").write_bytes(data[: ends[readable - 1] + 10])
    return folder / "v.mp4"


@pytest.mark.parametrize("readable, words", [(1, "1 readable frame: "), (20, "20 readable frames: ")])
def test_the_number_of_readable_frames(tmp_path, readable, words):
    with pytest.raises(ValueError, match=f"^'v.mp4' is damaged or cut off after {words}upload it again"):
        read_frames(cut_after_the_index(tmp_path, readable))


def test_two_missing_frames_are_a_warning(tmp_path):
    clip = read_frames(cut_after_the_index(tmp_path, 58))
    assert clip.frame_count in (58, 59) and "is cut off at its end" in clip.warnings[0]
