"""Files whose first packets are not shown, or cannot be decoded: trimmed ones, and recordings that begin in between."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import pytest
import torch

from ei2.video import read_audio, read_frames

from .written_video import break_packets, copied, delayed, encoded, tone, write_video


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize("g", ["12", "60"])
@pytest.mark.parametrize("cut", [2, 5, 18])
def test_an_edit_list_that_begins_after_a_keyframe(tmp_path, suffix, g, cut):
    """As `ffmpeg -ss ... -c copy` writes it: the frames before the start are in the file, but not shown."""
    source = encoded(tmp_path / f"whole{suffix}", "libx264", 60, {"g": g, "bf": "2"})
    whole = read_frames(source)
    path = copied(source, tmp_path / f"v{suffix}", delayed(lambda number: -cut / 25))
    clip = read_frames(path)
    assert clip.frame_count == 60 - cut and clip.fps == pytest.approx(25) and not clip.warnings
    assert torch.equal(clip.images, whole.images[cut:])
    late = read_frames(path, 30, 2, 4)
    assert torch.equal(late.images, clip.images[30:38:2]) and not late.warnings


def set_shown_duration(path: Path, seconds: float) -> None:
    """Shortens the first track's edit list ('elst', version 0; the movie's time scale is in 'mvhd')."""
    data = bytearray(path.read_bytes())
    at = data.index(b"mvhd") + 4 + 12
    scale = struct.unpack(">I", data[at : at + 4])[0]
    at = data.index(b"elst") + 4 + 8
    data[at : at + 4] = struct.pack(">I", round(seconds * scale))
    path.write_bytes(data)


@pytest.mark.parametrize("frames", [58, 30])
@pytest.mark.parametrize("start", [0, 20])
def test_an_edit_list_that_ends_before_the_file(tmp_path, frames, start):
    path = encoded(tmp_path / "v.mp4", "libx264", 60, {"g": "12", "bf": "0"}, lambda number: -1)
    set_shown_duration(path, frames / 25)
    clip = read_frames(path, start)
    assert clip.frame_count == pytest.approx(frames - start, abs=1) and not clip.warnings


def test_the_sound_of_a_trimmed_file_stays_in_step(tmp_path):
    source = write_video(tmp_path / "whole.mp4", 72, sound=tone(3.0))
    with av.open(str(source)) as whole, av.open(str(tmp_path / "v.mp4"), "w") as container:
        tracks = [container.add_stream_from_template(stream) for stream in whole.streams]
        for packet in whole.demux():
            if packet.size:
                delayed(lambda number: -1.0)(0, packet)
                packet.stream = tracks[packet.stream_index]
                container.mux(packet)
    clip = read_frames(tmp_path / "v.mp4")
    assert clip.frame_count == 48 and torch.equal(clip.images, read_frames(source).images[24:])
    sound = read_audio(tmp_path / "v.mp4", 0.0, 1.0, clip.starts)["waveform"][0, 0]
    assert torch.fft.rfft(sound).abs().argmax().item() == pytest.approx(400, abs=2)  # the second second's pitch


def frames_of_ffmpeg(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_intra_refresh_that_begins_in_the_middle(tmp_path):
    """A broadcast without keyframes: the picture is complete after a while, at a recovery point."""
    options = {"bf": "0", "x264-params": "intra-refresh=1:keyint=24"}
    data = encoded(tmp_path / "whole.ts", "libx264", 96, options).read_bytes()
    path = tmp_path / "v.ts"
    path.write_bytes(data[len(data) // 188 // 3 * 188 :])
    clip, wanted = read_frames(path), frames_of_ffmpeg(path)
    assert clip.frame_count == wanted > 30 and clip.fps == pytest.approx(25)
    assert torch.equal(clip.images[-24:], read_frames(tmp_path / "whole.ts").images[-24:])


def test_a_broken_first_keyframe(tmp_path):
    path = encoded(tmp_path / "v.mp4", "libx264", 60, {"g": "12", "bf": "2"})
    whole = read_frames(path)
    break_packets(path, [0])
    clip = read_frames(path)
    assert torch.equal(clip.images, whole.images[12:]) and "is damaged" in clip.warnings[0]
