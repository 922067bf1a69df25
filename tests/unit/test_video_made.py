"""More videos of the kinds that users have, each made by the test itself."""

from __future__ import annotations

import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from devtools.environment import ROOT
from ei2.video import read_audio, read_frames

from .written_video import level, levels, quadrants, tone, write_video


def textured(index: int, width: int, height: int) -> np.ndarray:
    """A picture that differs from all others and moves."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    colours = [(x * 3 + index * 5) % 256, (y * 4 + index * 3) % 256, (x + y + index * 7) % 256]
    return np.stack(colours, 2).astype(np.uint8)


def encoded(
    path: Path,
    codec: str,
    frames: int,
    options: dict | None = None,
    shift=lambda index: 0,
    rate=25,
    size=(96, 64),
    pixels="yuv420p",
    picture=textured,
    bframes: int = 0,
) -> Path:
    """A file whose time stamps, in frames, are moved by shift(index)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        if bframes:
            stream.codec_context.max_b_frames = bframes
        number = 0
        for index in range(frames + 1):
            frame = None
            if index < frames:
                frame = av.VideoFrame.from_ndarray(picture(index, *size), "rgb24").reformat(format=pixels)
                frame.pts, frame.time_base = index, Fraction(1, rate)
            for packet in stream.encode(frame):
                ticks = round(shift(number) / rate / packet.time_base)
                packet.pts, packet.dts, number = packet.pts + ticks, packet.dts + ticks, number + 1
                container.mux(packet)
    return path


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


def hdr_signal(light: np.ndarray, transfer: str) -> np.ndarray:
    """cd/m² -> 0..1, by the definitions of BT.2100: PQ's inverse EOTF; HLG's inverse OOTF for greys, then its OETF."""
    if transfer == "pq":
        power = (light / 10000) ** (2610 / 16384)
        return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
    scene = (light / 1000) ** (1 / 1.2)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)


@pytest.mark.parametrize("transfer, tag", [("pq", 16), ("hlg", 18)])
def test_greys_of_hdr_become_those_of_sdr(tmp_path, transfer, tag):
    grey = np.array([10, 40, 100, 160, 200])
    linear = ((grey / 255 + 0.055) / 1.055) ** 2.4  # sRGB; 10 is above its straight part
    codes = np.round(64 + 876 * hdr_signal(203 * linear, transfer)).astype(np.uint16)
    with av.open(str(tmp_path / "v.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p10le"
        stream.codec_context.color_trc, stream.codec_context.color_primaries = tag, 9
        stream.codec_context.colorspace, stream.codec_context.color_range = 9, 1
        for code in codes:
            frame = av.VideoFrame(64, 64, "yuv420p10le")
            for plane, value in zip(frame.planes, (code, 512, 512)):
                plane.update(np.full(plane.buffer_size // 2, value, "<u2").tobytes())
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    clip = read_frames(tmp_path / "v.mkv")
    assert clip.images[:, 32, 32].mul(255).flatten().tolist() == pytest.approx(np.repeat(grey, 3).tolist(), abs=2)
    assert any("HDR" in one for one in clip.warnings)


def sound_file(path: Path, tracks: list[tuple[str, np.ndarray]], default: int = 0, codec: str = "aac") -> Path:
    """25 frames and sound tracks (layout, samples), one of them the default one."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        sounds = [container.add_stream(codec, rate=48000, layout=layout) for layout, _ in tracks]
        for index, sound in enumerate(sounds):
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


def test_hidden_frames_of_vp8_are_no_frames(tmp_path):
    options = {"auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "good", "arnr-maxframes": "7", "b": "60k"}
    path = encoded(tmp_path / "v.webm", "libvpx", 80, options)
    clip = read_frames(path)
    assert clip.frame_count == 80 and clip.fps == pytest.approx(25)


LIMITED = """
import resource, sys
sys.path.insert(0, {root!r})
from ei2.video import read_frames
read_frames({path!r}, max_frames=1)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {room}, used + {room}))
try:
    read_frames({path!r}, width=1024, height=1024)
except ValueError as error:
    print(error)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's limit of a process's memory")
@pytest.mark.parametrize("room", [4_000_000, 60_000_000, 200_000_000])
def test_short_of_memory_is_said(tmp_path, room):
    path = encoded(tmp_path / "v.mp4", "libx264", 60, size=(640, 480))
    root = str(ROOT)
    code = LIMITED.format(root=root, path=str(path), room=room)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("Memory ran out while 'v.mp4' was being read: lower max_frames"), done


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


def test_a_header_that_is_cut_off_is_refused_in_words(tmp_path):
    data = (ROOT / "assets" / "quickstart.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[:400])
    with pytest.raises(ValueError, match="^The video of 'cut.mp4' cannot be decoded: it is incomplete, damaged"):
        read_frames(tmp_path / "cut.mp4")
