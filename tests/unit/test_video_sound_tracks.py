"""The sound tracks of a video: which one is taken, its channels, its memory, and what happens when it is broken."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch

from ei2.video import read_audio, read_frames

from .written_video import textured, tone


def sound_file(
    path: Path,
    tracks: list[tuple[str, np.ndarray]],
    default: int = 0,
    codec: str = "aac",
    bit_rate: int = 128000,
    pictures: str = "libx264",
) -> Path:
    """25 frames and sound tracks (layout, samples), one of them the default one."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(pictures, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        sounds = [container.add_stream(codec, rate=48000, layout=layout) for layout, _ in tracks]
        for index, sound in enumerate(sounds):
            sound.codec_context.bit_rate = bit_rate
            sound.disposition = av.stream.Disposition.default.value if index == default else 0
        for index in range(25):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(textured(index, 64, 48), "rgb24")))
        container.mux(stream.encode())
        for sound, (layout, samples) in zip(sounds, tracks):
            block = av.AudioFrame.from_ndarray(samples.astype(np.float32), "fltp", layout=layout)
            block.sample_rate, block.pts = 48000, 0
            container.mux(sound.encode(block))
            container.mux(sound.encode())
    return path


@pytest.mark.parametrize("layout, channels", [("mono", 1), ("stereo", 2), ("5.1", 2), ("5.0", 2), ("quad", 2)])
def test_more_than_two_channels_become_stereo(tmp_path, layout, channels):
    count = {"mono": 1, "stereo": 2, "5.1": 6, "5.0": 5, "quad": 4}[layout]
    path = sound_file(tmp_path / "v.mkv", [(layout, np.tile(tone(1.0, channels=1), (count, 1)))])
    waveform = read_audio(path, 0.0, 1.0)["waveform"]
    assert waveform.shape == (1, channels, 48000) and 0.3 < waveform.abs().max() <= 1.0


@pytest.mark.parametrize("default", [0, 1])
def test_the_default_sound_track_is_taken(tmp_path, default):
    low, high = tone(1.0), np.tile(0.5 * np.sin(2 * np.pi * 880 * np.arange(48000) / 48000), (2, 1))
    path = sound_file(tmp_path / "v.mkv", [("stereo", low), ("stereo", high)], default)
    spectrum = torch.fft.rfft(read_audio(path, 0.0, 1.0)["waveform"][0, 0]).abs()
    assert spectrum.argmax().item() == pytest.approx((200, 880)[default], abs=2)


@pytest.mark.parametrize("damage", ["one", "all"])
def test_broken_sound_never_costs_the_frames(tmp_path, damage):
    path = sound_file(tmp_path / "v.mp4", [("stereo", tone(1.0))])
    with av.open(str(path)) as container:
        blocks = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size]
    data, noise = bytearray(path.read_bytes()), np.random.default_rng(1)
    for pos, size in blocks[20:21] if damage == "one" else blocks:
        data[pos : pos + size] = noise.integers(0, 256, size, dtype=np.uint8).tobytes()
    path.write_bytes(data)
    said: list[str] = []
    assert read_frames(path).frame_count == 25
    audio = read_audio(path, 0.0, 1.0, warn=said.append)
    assert audio["waveform"].shape == (1, 2, 48000) and torch.isfinite(audio["waveform"]).all() and said


def test_sound_counts_in_the_memory(tmp_path):
    path = sound_file(tmp_path / "v.mkv", [("stereo", tone(1.0))])
    pictures = 25 * 64 * 48 * 15
    with pytest.raises(ValueError, match="^25 frames of 64 x 48 need"):
        read_frames(path, max_bytes=pictures + 100_000)
    assert read_frames(path, max_bytes=pictures + 48000 * 2 * 4 * 2 + 1000).frame_count == 25


def test_what_the_callback_raises_ends_the_reading_of_the_sound(tmp_path):
    path = sound_file(tmp_path / "v.mkv", [("stereo", tone(1.0))])

    def stop(share):
        assert 0 <= share <= 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_audio(path, 0.0, 1.0, tick=stop)


@pytest.mark.parametrize("codec", ["wmav1", "wmav2"])
def test_the_last_frame_of_wma_has_no_time(tmp_path, codec):
    path = sound_file(tmp_path / "v.wmv", [("stereo", tone(1.0))], codec=codec)
    said: list[str] = []
    clip = read_frames(path)
    assert clip.frame_count == 25 and not clip.warnings
    for start, duration in ((0.0, 1.0), (0.5, 0.5), (0.0, 3.0)):
        audio = read_audio(path, start, duration, clip.starts, said.append)
        wave = audio["waveform"][0, 0]
        loud = wave[: int((1.0 - start) * 48000)]
        spectrum = torch.fft.rfft(loud).abs()
        assert spectrum.argmax().item() * 48000 / len(loud) == pytest.approx(200, abs=3)
        assert loud.square().mean().sqrt().item() == pytest.approx(0.354, rel=0.15)
        assert len(wave) == duration * 48000
    assert not said


def test_any_fault_of_the_sound_leaves_the_frames(tmp_path, monkeypatch):
    def faulty(*args):
        raise TypeError("a value of a packet is missing")

    monkeypatch.setattr("ei2.video.sound._blocks", faulty)
    path, said = sound_file(tmp_path / "v.mkv", [("stereo", tone(1.0))]), []
    assert read_audio(path, 0.0, 1.0, warn=said.append)["waveform"].abs().max() == 0
    assert len(said) == 1 and "could not be read to the end" in said[0]
