"""The sound of a span of a video."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ei2.video import read_audio, read_frames

from .written_video import tone, write_video


def pitch_of(waveform: torch.Tensor, rate: int) -> float:
    spectrum = torch.fft.rfft(waveform[0, 0]).abs()
    return spectrum.argmax().item() * rate / waveform.shape[-1]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_sound_of_the_span(tmp_path, suffix, channels):
    path = write_video(tmp_path / f"v{suffix}", 120, sound=tone(5.0, channels=channels))
    clip = read_frames(path, 72, 1, 24)  # the fourth second
    audio = read_audio(path, clip.start_seconds, clip.end_seconds - clip.start_seconds)
    assert audio["sample_rate"] == 48000 and audio["waveform"].dtype == torch.float32
    assert audio["waveform"].shape == (1, channels, 48000)
    assert pitch_of(audio["waveform"], 48000) == pytest.approx(800, abs=2)
    assert audio["waveform"].pow(2).mean().sqrt().item() == pytest.approx(0.5 / 2**0.5, rel=0.05)


def test_sound_starts_within_two_milliseconds(tmp_path):
    sound = np.zeros((2, 96000), np.float32)
    sound[:, 60000:] = tone(0.75)  # starts at 1.25 s
    path = write_video(tmp_path / "v.mp4", sound=sound)
    for start, expected in ((0.0, 1.25), (1.0, 0.25)):
        waveform = read_audio(path, start, 1.0 + expected)["waveform"][0, 0]
        loud = (waveform.abs() > 0.1).nonzero()[0].item() / 48000
        assert loud == pytest.approx(expected, abs=0.002)


def test_sound_shorter_than_the_span_ends_in_silence(tmp_path):
    path = write_video(tmp_path / "v.mp4", 48, sound=tone(1.0))
    waveform = read_audio(path, 0.0, 2.0)["waveform"]
    assert waveform.shape == (1, 2, 96000)
    assert waveform[..., 60000:].abs().max() == 0 and waveform[..., :40000].abs().max() > 0.4


def test_no_sound_is_none(tmp_path):
    assert read_audio(write_video(tmp_path / "v.mp4", 2), 0.0, 1.0) is None
