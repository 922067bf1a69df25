"""Files and options that cannot be read: one clear sentence each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from devtools.environment import ROOT
from ei2.video import read_frames

from .written_video import encoded, grey_frame, tone, write_video


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
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
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


def one(folder: Path) -> Path:
    return write_video(folder / "one.mp4", 1)


def tiny(folder: Path) -> Path:
    return write_video(folder / "tiny.mp4", 2, (6, 20))


@pytest.mark.parametrize(
    "make, options, message",
    [
        (no_file, {}, r"^There is no video file 'gone.mp4': choose an existing file or upload it again\.$"),
        (folder_not_file, {}, r"^There is no video file"),
        (empty_file, {}, r"^'empty.mp4' is empty \(0 bytes\): upload it again\.$"),
        (text_file, {}, r"^'text.mp4' cannot be read as a video: .*export it as MP4"),
        (without_index, {}, r"^'cut.mp4' cannot be read as a video: it is incomplete"),
        (sound_only, {}, r"^'song.m4a' has no picture track"),
        (sound_with_cover, {}, r"^'cover.m4a' has no picture track"),
        (
            good,
            {"start_frame": 48},
            r"^start_frame 48 is beyond the end of 'good.mp4', which has 48 frames: .* 0 to 47\.$",
        ),
        (one, {"start_frame": 1}, r"^start_frame 1 is beyond the end of 'one.mp4', which has 1 frame: use 0\.$"),
        (good, {"start_frame": -1}, r"^start_frame is -1, but must be at least 0\.$"),
        (good, {"frame_stride": 0}, r"^frame_stride is 0, but must be at least 1\.$"),
        (good, {"max_frames": -2}, r"^max_frames is -2, but must be at least 0\.$"),
        (good, {"width": 515}, r"^width is 515, .*: use 512 or 520\.$"),
        (good, {"height": 4}, r"^height is 4, .*: use the source size \(0\) or 8\.$"),
        (good, {"height": -8}, r"^height is -8, .*: use the source size \(0\) or 8\.$"),
        (good, {"fit": "zoom"}, r"^fit is 'zoom', but must be one of: crop, pad, stretch\.$"),
        (good, {"width": 512, "max_bytes": 1e7}, r"^48 frames of 512 x 384 need .* GB .*: lower max_frames, width"),
        (tiny, {}, r"^'tiny.mp4' is only 6 x 20 pixels: set width and height"),
    ],
)
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
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert read_frames(cut, max_frames=8).frame_count == 8  # what is there can be used
    with pytest.raises(ValueError, match=r"^'cut.mp4' is damaged or cut off after \d+ readable frames: "):
        read_frames(cut)


def test_a_header_that_is_cut_off_is_refused_in_words(tmp_path):
    data = (ROOT / "assets" / "quickstart.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[:400])
    with pytest.raises(ValueError, match="^The video of 'cut.mp4' cannot be decoded: it is incomplete, damaged"):
        read_frames(tmp_path / "cut.mp4")


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


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_locked_file_is_said(tmp_path, suffix, monkeypatch):
    """A superuser may read any file, so the system's answer is replaced."""
    path = tmp_path / f"locked{suffix}"
    path.write_bytes(b"GIF89a")
    monkeypatch.setattr("ei2.video.opening.os.access", lambda *_: False)
    with pytest.raises(ValueError, match=f"^'locked{suffix}' cannot be read: ComfyUI has no permission"):
        read_frames(path)
