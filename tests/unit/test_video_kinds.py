"""Videos of the kinds that users have: what a player shows is what is read. The files in `videos` were made for this
with ffmpeg, a few of them damaged afterwards; all have 12 frames a second unless a test says otherwise."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from ei2.video import VideoClip, read_audio, read_frames

VIDEOS = Path(__file__).parent / "videos"
RED, GREEN, BLUE, BLACK = (220, 30, 30), (30, 200, 30), (30, 30, 220), (40, 40, 40)


def sound_of(path: Path, clip: VideoClip, warn=None) -> dict | None:
    return read_audio(path, clip.start_seconds, clip.end_seconds - clip.start_seconds, clip.starts, warn)


def flashes(clip: VideoClip) -> list[float]:
    """When the picture becomes white, in seconds."""
    white = [image.mean().item() > 0.85 for image in clip.images]
    return [index / clip.fps for index, one in enumerate(white) if one and not white[index - 1]]


def beeps(audio: dict) -> list[float]:
    """When the sound begins, in seconds, to 10 ms."""
    step = audio["sample_rate"] // 100
    wave = audio["waveform"][0, 0]
    loud = wave[: len(wave) // step * step].reshape(-1, step).abs().amax(1) > 0.1
    return [index / 100 for index, one in enumerate(loud) if one and not loud[max(0, index - 5) : index].any()]


def corners(images: torch.Tensor, frame: int = 0) -> list[tuple[int, ...]]:
    """The colours in the corners: top left, top right, bottom left, bottom right, 0..255."""
    image = (images[frame] * 255).round().int()
    return [tuple(image[y, x].tolist()) for y, x in ((3, 3), (3, -4), (-4, 3), (-4, -4))]


def near(found: list[tuple[int, ...]], wanted: list[tuple[int, ...]], tolerance: int = 8) -> bool:
    return bool(np.abs(np.array(found) - np.array(wanted)).max() <= tolerance)


@pytest.mark.parametrize(
    "name, frames, fps, warning",
    [
        ("s_concat.ts", 96, 12, "jumps 1 time,"),
        ("size_change.ts", 20, 12, "jumps 1 time,"),
        ("s_mp3.avi", 48, 12, None),
        ("y_x264_bf3.avi", 40, 12, None),
        ("y_dur.flv", 48, 12, None),
        ("d_amid.mp4", 48, 12, None),
        ("d_azero.mp4", 48, 12, None),
        ("d_vmid.mp4", 48, 12, "damaged"),
        ("d_vzero.mp4", 48, 12, "damaged"),
        ("d_vhead.mkv", 48, 12, "missing"),
        ("real_pq.mp4", 6, 12, "HDR"),
        ("vfr.mp4", 88, 24, "variable rate"),
        ("vfr.gif", 36, 20, "variable rate"),
        ("alpha_vp8.webm", 12, 12, None),
        ("alpha_vp9.webm", 12, 12, None),
        ("alpha_prores.mov", 12, 12, None),
        ("alpha.apng", 12, 12, None),
        ("anim.webp", 20, 6, None),
        ("interlaced.mpg", 20, 12, None),
        ("raw.h264", 40, 12, None),
        ("s_aac.mp4", 48, 12, None),
        ("s_opus.webm", 48, 12, None),
        ("s_vid_starts05.mkv", 42, 12, None),
        ("sar_rot.mp4", 40, 12, None),
    ],
)
def test_number_and_rate_of_the_frames(name, frames, fps, warning):
    clip = read_frames(VIDEOS / name, max_frames=0)
    assert (clip.frame_count, clip.fps) == (frames, pytest.approx(fps))
    assert (warning is None and not clip.warnings) or any(warning in one for one in clip.warnings), clip.warnings
    first = read_frames(VIDEOS / name, max_frames=8)  # the same when only a part is read
    assert first.fps == pytest.approx(fps) and torch.equal(first.images, clip.images[:8])


@pytest.mark.parametrize(
    "name, shown, heard",
    [
        ("s_aac.mp4", [1, 2, 3], [1, 2, 3]),
        ("s_opus.webm", [1, 2, 3], [1, 2, 3]),
        ("s_vid_starts05.mkv", [0.5, 1.5, 2.5], [0.5, 1.5, 2.5]),
        ("s_hole.mkv", [1, 2, 3], [1, 3]),
        ("s_concat.ts", [1, 2, 3, 5, 6, 7], [1, 2, 3, 5, 6, 7]),
        ("s_mp3.avi", [1, 2, 3], [1, 2, 3]),
        ("y_dur.flv", [1, 2, 3], [1, 2, 3]),
        ("d_amid.mp4", [1, 2, 3], [1, 2, 3]),
        ("d_azero.mp4", [1, 2, 3], [1, 2, 3]),
        ("d_vmid.mp4", [1, 2, 3], [1, 2, 3]),
        ("d_vzero.mp4", [1, 2, 3], [1, 2, 3]),
        ("d_vhead.mkv", [1, 3], [1, 2, 3]),  # the flash at 2 is the lost frame
    ],
)
def test_flash_and_beep_fall_together(name, shown, heard):
    clip = read_frames(VIDEOS / name)
    audio = sound_of(VIDEOS / name, clip)
    assert flashes(clip) == pytest.approx(shown, abs=0.01)
    assert beeps(audio) == pytest.approx(heard, abs=0.03)
    alone = read_audio(VIDEOS / name, clip.start_seconds, clip.end_seconds - clip.start_seconds)
    assert torch.equal(alone["waveform"], audio["waveform"])
    assert audio["waveform"].shape[2] == round(clip.frame_count / clip.fps * audio["sample_rate"])
    later = read_frames(VIDEOS / name, 15, 1, 12)  # 1.25 to 2.25 s
    found = beeps(sound_of(VIDEOS / name, later))
    assert found == pytest.approx([time - 1.25 for time in heard if 1.25 < time < 2.25], abs=0.04)


@pytest.mark.parametrize("name", ["d_amid.mp4", "d_azero.mp4"])
def test_a_broken_packet_of_sound_is_silent_and_said(name):
    said: list[str] = []
    assert sound_of(VIDEOS / name, read_frames(VIDEOS / name), said.append) is not None
    number = r"(1 packet could not be decoded and was|\d+ packets could not be decoded and were)"
    assert len(said) == 1 and re.match(f"The sound of '{name}' is damaged: {number} replaced by silence.$", said[0])


def test_a_file_that_is_cut_off_is_refused_in_words():
    with pytest.raises(ValueError, match=r"^'cut_fast.mp4' is damaged or cut off after \d+ readable frames: "):
        read_frames(VIDEOS / "cut_fast.mp4")
    assert read_frames(VIDEOS / "cut_fast.mp4", max_frames=24).frame_count == 24


@pytest.mark.parametrize(
    "name, frame, wanted",
    [
        ("sar_rot.mp4", 0, [GREEN, BLACK, RED, BLUE]),
        ("real_pq.mp4", 0, [RED, GREEN, BLUE, BLACK]),
        ("anim.webp", 0, [RED, GREEN, BLUE, BLACK]),
        ("interlaced.mpg", 5, [RED, GREEN, BLUE, BLACK]),
        ("size_change.ts", 5, [RED, GREEN, BLUE, BLACK]),
        ("size_change.ts", 15, [RED, GREEN, BLUE, BLACK]),
        ("raw.h264", 0, [RED, GREEN, BLUE, BLACK]),
    ],
)
def test_colours_in_the_corners(name, frame, wanted):
    assert near(corners(read_frames(VIDEOS / name).images, frame), wanted)


@pytest.mark.parametrize("name", ["alpha_vp8.webm", "alpha_vp9.webm", "alpha_prores.mov", "alpha.apng"])
@pytest.mark.parametrize("size", [{}, {"width": 48, "height": 48, "fit": "pad"}, {"width": 24, "height": 24}])
def test_transparent_places_show_the_background(name, size):
    """A white box on transparent red, and a bar of half transparent red."""
    black = read_frames(VIDEOS / name, **size)
    assert black.images[:, 2, 2].max() < 0.02
    assert black.mask.shape == black.images.shape[:3] and black.mask.dtype == torch.float32
    middle = (0, black.mask.shape[1] // 2, black.mask.shape[2] // 2)
    assert black.mask[0, 3, 3] > 0.98 and black.mask[middle] < 0.02 and black.images[middle].min() > 0.95
    red_only = black.images[..., 0] - black.images[..., 1]
    assert (red_only <= 1.04 - black.mask).all()  # nothing of the hidden red, not even at the edges
    blue = read_frames(VIDEOS / name, background=(0, 0, 255), **size)
    assert near([tuple((blue.images[0, 2, 2] * 255).tolist())], [(0, 0, 255)], 3)
    assert torch.equal(blue.mask, black.mask)


def test_interlaced_frames_are_made_whole():
    """An edge that moves between the two fields combs: every other line has the other field's brightness."""
    clip = read_frames(VIDEOS / "interlaced.mpg")
    rows = clip.images.mean(3)
    comb = (rows[:, 1:-1] - (rows[:, :-2] + rows[:, 2:]) / 2).abs().amax(1)
    assert comb[5:].median() < 0.15


@pytest.mark.parametrize("rate, frames", [(12.0, 44), (24.0, 88), (48.0, 176)])
def test_a_chosen_rate(rate, frames):
    clip = read_frames(VIDEOS / "vfr.mp4", frame_rate=rate)
    assert clip.fps == rate and clip.frame_count == pytest.approx(frames, abs=1) and not clip.warnings
    late = read_frames(VIDEOS / "vfr.mp4", int(3 * rate), 1, 4, frame_rate=rate)
    assert torch.equal(late.images, clip.images[int(3 * rate) : int(3 * rate) + 4])
    assert late.start_seconds == pytest.approx(3.0)


@pytest.mark.parametrize("rate, wanted", [(6.0, [0, 2, 4, 6]), (12.0, [0, 1, 2, 3]), (24.0, [0, 0, 1, 1])])
def test_a_chosen_rate_takes_the_frame_that_is_shown(rate, wanted):
    own = read_frames(VIDEOS / "s_aac.mp4")
    other = read_frames(VIDEOS / "s_aac.mp4", max_frames=4, frame_rate=rate)
    assert other.fps == rate and torch.equal(other.images, own.images[wanted])


def test_a_rate_that_is_none():
    for rate in (float("nan"), -1.0, 1e9):
        with pytest.raises(ValueError, match="^frame_rate is "):
            read_frames(VIDEOS / "s_aac.mp4", frame_rate=rate)


@pytest.mark.parametrize(
    "name",
    [
        "d_vhead.mkv",
        "d_vmid.mp4",
        "d_vzero.mp4",
        "s_concat.ts",
        "size_change.ts",
        "vfr.mp4",
        "y_x264_bf3.avi",
        "y_dur.flv",
        "raw.h264",
        "interlaced.mpg",
        "alpha_vp9.webm",
        "alpha.apng",
        "anim.webp",
    ],
)
@pytest.mark.parametrize("start", [1, 7, 11])
def test_a_late_start_gives_the_frames_of_a_whole_reading(name, start):
    whole = read_frames(VIDEOS / name)
    part = read_frames(VIDEOS / name, start, 1, 4)
    count = part.frame_count
    assert count == min(4, whole.frame_count - start)
    # bwdif looks at neighbours, which the first frame of a part lacks
    tolerance = 0.2 if name == "interlaced.mpg" else 0
    assert (part.images - whole.images[start : start + count]).abs().max() <= tolerance
