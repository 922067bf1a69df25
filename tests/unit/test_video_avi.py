"""AVI, whose times are ticks: dropped frames, a rate that is that of the ticks only, and B-frames."""

from __future__ import annotations

import av
import pytest
import torch

from ei2.video import read_audio, read_frames

from .written_video import copied, delayed, encoded, tone, write_video


@pytest.mark.parametrize("codec, pixels", [("mjpeg", "yuvj420p"), ("mpeg4", "yuv420p")])
def test_dropped_frames_keep_their_time(tmp_path, codec, pixels):
    """A capture that lost three frames after the 20th: AVI has empty ticks there."""
    source = encoded(tmp_path / "whole.avi", codec, 60, pixels=pixels)
    whole = read_frames(source)
    assert whole.frame_count == 60 and whole.fps == pytest.approx(25) and not whole.warnings
    path = copied(source, tmp_path / "v.avi", delayed(lambda number: 3 / 25 if number >= 20 else 0))
    clip = read_frames(path)
    assert clip.frame_count == 63 and clip.fps == pytest.approx(25)
    assert len(clip.warnings) == 1 and "3 of them repeated" in clip.warnings[0]
    shown = [*range(20), 19, 19, 19, *range(20, 60)]
    assert torch.equal(clip.images, whole.images[shown])
    part = read_frames(path, 18, 2, 5)
    assert torch.equal(part.images, clip.images[18:28:2]) and part.start_seconds == pytest.approx(18 / 25)


def test_dropped_frames_between_b_frames(tmp_path):
    """The decoder holds a frame back, but the gap stays where it was."""
    source = encoded(tmp_path / "whole.avi", "mpeg4", 60, bframes=2)
    whole = read_frames(source)
    path = copied(source, tmp_path / "v.avi", delayed(lambda number: 6 / 25 if number >= 30 else 0))
    clip = read_frames(path)
    assert clip.frame_count == 66 and clip.fps == pytest.approx(25)
    repeated = [index for index in range(1, 66) if torch.equal(clip.images[index], clip.images[index - 1])]
    assert repeated == list(range(29, 35))
    assert torch.equal(clip.images[40:], whole.images[34:])


@pytest.mark.parametrize("frames", [0, 8])
def test_the_rate_of_the_ticks_is_not_that_of_the_frames(tmp_path, frames):
    """An MP4 copied into AVI: its header says as many frames per second as the clock has ticks."""
    source = encoded(tmp_path / "v.mp4", "mpeg4", 60, bframes=2, rate=24)
    path = copied(source, tmp_path / "v.avi")
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate > 100
    clip = read_frames(path, max_frames=frames)
    assert clip.fps == clip.source_fps == pytest.approx(24) and clip.frame_count == (frames or 60)
    assert torch.equal(clip.images, read_frames(source, max_frames=frames).images) and not clip.warnings


def test_the_usual_rate_of_frames_without_their_own_times(tmp_path):
    """An MP4 copied from an AVI whose encoder took three ticks to start: its time stamps are those of decoding, and its
    mean rate is too low."""
    source = encoded(tmp_path / "v.mp4", "mpeg4", 60, bframes=2, rate=24)

    def late(number: int, packet: av.Packet) -> None:
        packet.dts = packet.pts = round((number + 3 * (number > 0)) / 24 / packet.time_base)

    path = copied(source, tmp_path / "copy.mp4", late)
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate < 23
    clip = read_frames(path)
    assert clip.fps == pytest.approx(24) and torch.equal(clip.images, read_frames(source).images)


@pytest.mark.parametrize("late", [0.0, 0.04, 1.0])
def test_a_picture_that_starts_after_the_sound(tmp_path, late):
    """FFmpeg writes the first frame without the wait before it. A short one is the delay of an encoder."""
    source = write_video(tmp_path / "v.mkv", 72, codec="mjpeg", pixels="yuvj420p", sound=tone(3.0))

    clip = read_frames(copied(source, tmp_path / "v.avi", delayed(lambda number: late)))
    assert clip.frame_count == 72 and clip.fps == pytest.approx(24) and not clip.warnings
    assert clip.starts[0][0] == (pytest.approx(1.0, abs=0.05) if late == 1.0 else 0.0)
    sound = read_audio(tmp_path / "v.avi", 0.0, 1.0, clip.starts)["waveform"][0, 0]
    pitch = torch.fft.rfft(sound[12000:36000]).abs().argmax().item() * 2
    assert pitch == pytest.approx(400 if late == 1.0 else 200, abs=2)
