"""Reads the frames and the sound of a span of a video file, with memory for the kept frames only.

PyAV is used directly, not through imageio: imageio's plugin converts every frame it passes to RGB at full size, gives
each frame's picture without its rotation, and has no sound. Here a skipped frame is only decoded, and a kept frame is
scaled and converted in one step.

Every error is a `ValueError` with one sentence that says what is wrong and what to do.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

FITS = ("crop", "pad", "stretch")
SIZE_STEP = 8  # pixels: a VAE reduces the size by this factor
BYTES_PER_PIXEL = 3 * (4 + 1)  # float32 result, and the 8-bit frames it is made of

# swscale's flags. Lanczos widens its kernel when it reduces, so it is antialiased; the three others stop it from
# rounding coarsely and from reusing the colour of neighbouring pixels.
_LANCZOS, _FULL_CHROMA_OUT, _FULL_CHROMA_IN, _ACCURATE = 0x200, 0x2000, 0x4000, 0x40000
SCALING = _LANCZOS | _FULL_CHROMA_OUT | _FULL_CHROMA_IN | _ACCURATE

# A frame's matrix tag (ITU-T H.273) -> swscale's name of that matrix.
MATRIX_BT709, MATRIX_BT601 = 1, 5
MATRICES = {1: MATRIX_BT709, 4: 4, 5: MATRIX_BT601, 6: MATRIX_BT601, 7: 7, 9: 9, 10: 9}
RANGE_LIMITED, RANGE_FULL = 1, 2


@dataclass(frozen=True)
class VideoClip:
    """A span of a video.

    images: `f h w 3`, float32, 0..1. fps: frames per second after the stride. start_seconds, end_seconds: the span,
    counted from the file's first frame. source_width, source_height: pixels as displayed (rotated, square pixels).
    source_fps: the file's average rate.
    """

    images: torch.Tensor
    fps: float
    start_seconds: float
    end_seconds: float
    source_width: int
    source_height: int
    source_fps: float

    @property
    def frame_count(self) -> int:
        return self.images.shape[0]


def read_frames(path: str | Path, start_frame: int = 0, frame_stride: int = 1, max_frames: int = 0, width: int = 0,
                height: int = 0, fit: str = "crop", on_frame: Callable[[int, int], object] | None = None,
                max_bytes: float | None = None) -> VideoClip:
    """Read frames `start_frame`, `start_frame + frame_stride`, … (at most `max_frames`; 0 = to the end) of a video.

    width, height: pixels, multiples of 8; 0 = from the source: one 0 keeps the aspect ratio, two keep the source's
    size, with its edges cropped to multiples of 8. fit: "crop" fills the size and cuts what sticks out, "pad" shows
    everything between black bars, "stretch" distorts. on_frame(decoded, expected) is called after each decoded frame,
    kept or not; what it raises ends the reading. max_bytes: memory that the result may take. Raises ValueError.
    """
    check_size(width, height)
    check_fit(fit)
    for name, value, least in (("start_frame", start_frame, 0), ("frame_stride", frame_stride, 1),
                               ("max_frames", max_frames, 0)):
        if value < least:
            raise ValueError(f"{name} is {value}, but must be at least {least}.")
    with _open(path) as container:
        name, stream = Path(path).name, _video_stream(container, path)
        rate = stream.average_rate or stream.guessed_rate
        if not rate:
            raise ValueError(f"'{name}' states no frame rate: export it again with a constant frame rate.")
        stream.thread_type = "AUTO"
        expected = _frames_to_decode(container, stream, start_frame, frame_stride, max_frames)
        frames: list[np.ndarray] = []
        times: list[float] = []
        count, first_time, target, source = 0, 0.0, (0, 0), (0, 0)
        for count, frame in enumerate(_decoded(container, stream, name), start=1):
            index = count - 1
            time = float(frame.time) if frame.time is not None else float(index / rate)
            if index == 0:
                first_time = time
                source = _displayed_size(frame, stream)
                target = _target_size(source, width, height, name)
                _check_memory(1 + max(0, expected - start_frame - 1) // frame_stride, target, max_bytes)
            if index >= start_frame and (index - start_frame) % frame_stride == 0:
                _check_memory(len(frames) + 1, target, max_bytes)
                keeps_size = width == 0 and height == 0
                frames.append(_picture(frame, stream, target, "none" if keeps_size else fit))
                times.append(time - first_time)
            if on_frame is not None:
                on_frame(count, max(expected, count))
            if max_frames and len(frames) == max_frames:
                break
    if count == 0:
        raise ValueError(f"'{name}' has no frames: choose another video or export it again.")
    if not frames:
        raise ValueError(f"start_frame {start_frame} is beyond the end of '{name}', which has {count} frames: "
                         f"use 0 to {count - 1}.")
    fps = _frame_rate(times, rate / frame_stride)
    return VideoClip(_stack(frames), fps, times[0], times[0] + len(times) / fps, *source, float(rate))


def read_audio(path: str | Path, start_seconds: float, duration: float) -> dict | None:
    """Read the sound of a span (seconds, counted from the first frame) in ComfyUI's AUDIO form, or None without sound.

    Returns {"waveform": `1 channels samples` float32, "sample_rate": Hz}; always `duration` long, with silence where
    the file has no sound. Raises ValueError.
    """
    with _open(path) as container:
        if not container.streams.audio:
            return None
        stream, videos = container.streams.audio[0], container.streams.video
        origin = 0.0
        if videos and videos[0].start_time is not None:
            origin = float(videos[0].start_time * videos[0].time_base)
        rate = stream.codec_context.sample_rate
        waveform = np.zeros((stream.codec_context.layout.nb_channels, max(1, round(duration * rate))), np.float32)
        resampler = av.AudioResampler(format="fltp", layout=stream.codec_context.layout, rate=rate)
        # One second earlier: a sound decoder needs some packets before its output is right.
        container.seek(int(max(0.0, start_seconds + origin - 1.0) / stream.time_base), stream=stream)
        position = None  # sample index of the next block; only the first block's time counts, later ones follow on:
        for frame in _decoded(container, stream, Path(path).name):  # rounded times would leave clicks
            if position is None:
                position = round((float(frame.time or 0.0) - origin - start_seconds) * rate)
            for block in resampler.resample(frame):
                samples = block.to_ndarray()
                first, last = max(0, position), min(waveform.shape[1], position + samples.shape[1])
                if first < last:
                    waveform[:, first:last] = samples[:, first - position:last - position]
                position += samples.shape[1]
            if position >= waveform.shape[1]:
                break
    return {"waveform": torch.from_numpy(waveform)[None], "sample_rate": int(rate)}


def check_size(width: int, height: int) -> None:
    """Raise ValueError for a size that is neither 0 nor a positive multiple of 8 pixels."""
    for name, value in (("width", width), ("height", height)):
        if value < 0 or value % SIZE_STEP:
            low = max(0, value // SIZE_STEP * SIZE_STEP)
            nearest = f"{low or 'the source size (0)'} or {low + SIZE_STEP}"
            raise ValueError(f"{name} is {value}, but must be a multiple of {SIZE_STEP} for the VAE: use {nearest}.")


def check_fit(fit: str) -> None:
    """Raise ValueError for an unknown way of fitting."""
    if fit not in FITS:
        raise ValueError(f"fit is '{fit}', but must be one of: {', '.join(FITS)}.")


@contextmanager
def _open(path: str | Path) -> Iterator[av.container.InputContainer]:
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There is no video file '{path.name}': choose an existing file or upload it again.")
    if path.stat().st_size == 0:
        raise ValueError(f"'{path.name}' is empty (0 bytes): upload it again.")
    try:
        # metadata_errors: a badly encoded title must not stop the reading.
        container = av.open(str(path), metadata_errors="replace")
    except av.FFmpegError as error:
        raise ValueError(f"'{path.name}' cannot be read as a video: it is incomplete, damaged or of another type; "
                         "upload it again or export it as MP4 (H.264).") from error
    with container:
        yield container


def _video_stream(container: av.container.InputContainer, path: str | Path) -> av.VideoStream:
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:  # the cover picture of a music file
            return stream
    raise ValueError(f"'{Path(path).name}' has no picture track (only sound or data): choose a video file.")


def _decoded(container: av.container.InputContainer, stream: av.stream.Stream, name: str) -> Iterator[av.frame.Frame]:
    """The stream's decoded frames in order of display; raises ValueError at the end of a file that was cut off."""
    count, cut_off = 0, False
    try:
        for packet in container.demux(stream):
            # Decoding in threads hides the error of a file's last, incomplete packet. Corrupt packets before the last
            # one are usual in recordings of broadcasts, and no reason to stop.
            cut_off = packet.is_corrupt if packet.size else cut_off
            for frame in packet.decode():
                yield frame
                count += 1
    except av.FFmpegError as error:
        if count == 0:
            raise ValueError(f"The {stream.type} of '{name}' cannot be decoded: it is incomplete, damaged or of an "
                             "unknown kind; upload it again or export it as MP4 (H.264).") from error
        cut_off = True
    if cut_off:
        what = "frames" if stream.type == "video" else "blocks of sound"
        raise ValueError(f"'{name}' is damaged or cut off after {count} readable {what}: upload it again, or choose "
                         "a span before the damage with start_frame and max_frames.")


def _frames_to_decode(container: av.container.InputContainer, stream: av.VideoStream, start_frame: int,
                      frame_stride: int, max_frames: int) -> int:
    """How many frames will be decoded, by what the file says of itself; 0 = unknown."""
    total = stream.frames
    if not total and container.duration and stream.average_rate:
        total = round(container.duration / av.time_base * stream.average_rate)
    if not max_frames:
        return total
    wanted = start_frame + (max_frames - 1) * frame_stride + 1
    return min(total, wanted) if total else wanted


def _check_memory(frames: int, size: tuple[int, int], max_bytes: float | None) -> None:
    needed = frames * size[0] * size[1] * BYTES_PER_PIXEL
    if max_bytes is not None and needed > max_bytes:
        raise ValueError(f"{frames} frames of {size[0]} x {size[1]} need {needed / 2**30:.1f} GiB of memory and "
                         f"{max_bytes / 2**30:.1f} GiB are free: lower max_frames, width or height, "
                         "or raise frame_stride.")


def _quarter_turns(frame: av.VideoFrame) -> int:
    """Counterclockwise quarter turns that make the frame upright (phones store a rotation instead of turning)."""
    return round(frame.rotation / 90) % 4


def _displayed_size(frame: av.VideoFrame, stream: av.VideoStream) -> tuple[int, int]:
    """Width and height as a player shows the frame: with square pixels and upright."""
    width = max(1, round(frame.width * (stream.sample_aspect_ratio or Fraction(1))))
    return (frame.height, width) if _quarter_turns(frame) % 2 else (width, frame.height)


def _target_size(source: tuple[int, int], width: int, height: int, name: str) -> tuple[int, int]:
    """The result's width and height, multiples of 8."""
    source_width, source_height = source
    if width and height:
        return width, height
    if width:
        return width, max(SIZE_STEP, round(width * source_height / source_width / SIZE_STEP) * SIZE_STEP)
    if height:
        return max(SIZE_STEP, round(height * source_width / source_height / SIZE_STEP) * SIZE_STEP), height
    if min(source) < SIZE_STEP:
        raise ValueError(f"'{name}' is only {source_width} x {source_height} pixels: set width and height to a size of "
                         f"at least {SIZE_STEP} x {SIZE_STEP}.")
    return source_width // SIZE_STEP * SIZE_STEP, source_height // SIZE_STEP * SIZE_STEP


def _picture(frame: av.VideoFrame, stream: av.VideoStream, target: tuple[int, int], fit: str) -> np.ndarray:
    """The frame as uint8 RGB `h w 3` of the target's size; fit "none" keeps the displayed size and cuts its edges."""
    source = _displayed_size(frame, stream)
    scales = [wanted / own for wanted, own in zip(target, source)]
    if fit != "stretch":
        scales = [{"crop": max(scales), "pad": min(scales), "none": 1.0}[fit]] * 2
    width, height = (max(1, round(own * scale)) for own, scale in zip(source, scales))
    turns = _quarter_turns(frame)
    if turns % 2:
        width, height = height, width
    return _centred(np.rot90(_rgb(frame, width, height), turns), target)


def _rgb(frame: av.VideoFrame, width: int, height: int) -> np.ndarray:
    """Scale a frame and convert it to 8-bit RGB `h w 3` by the matrix and range it is tagged with."""
    layout = frame.format
    if layout.is_rgb or layout.has_palette or len(layout.components) < 3:  # RGB or grey: no matrix
        return frame.reformat(width, height, "rgb24", interpolation=SCALING).to_ndarray()
    # Untagged: HD is bt709, smaller is bt601, as players assume.
    untagged = MATRIX_BT709 if frame.width >= 1280 or frame.height > 576 else MATRIX_BT601
    matrix = MATRICES.get(int(frame.colorspace), untagged)
    full = int(frame.color_range) == RANGE_FULL or layout.name.startswith("yuvj")
    # RGB has no matrix, yet PyAV before 17 ignores the source's matrix and range when the result's are the same.
    unused = MATRIX_BT601 if matrix != MATRIX_BT601 else MATRIX_BT709
    return frame.reformat(width, height, "rgb24", src_colorspace=matrix, dst_colorspace=unused, interpolation=SCALING,
                          src_color_range=RANGE_FULL if full else RANGE_LIMITED,
                          dst_color_range=RANGE_FULL).to_ndarray()


def _centred(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Cut the middle out of a picture, or put it in the middle of a black one; `h w 3`."""
    width, height = size
    top, left = max(0, (picture.shape[0] - height) // 2), max(0, (picture.shape[1] - width) // 2)
    picture = picture[top:top + height, left:left + width]
    if picture.shape[:2] == (height, width):
        return np.ascontiguousarray(picture)
    result = np.zeros((height, width, 3), np.uint8)
    top, left = (height - picture.shape[0]) // 2, (width - picture.shape[1]) // 2
    result[top:top + picture.shape[0], left:left + picture.shape[1]] = picture
    return result


def _frame_rate(times: list[float], rate: Fraction) -> float:
    """The stated rate, unless the frames' own times differ by more than a frame: a variable rate, then their mean."""
    steps, length = len(times) - 1, times[-1] - times[0]
    if steps and length > 0 and abs(length - steps / rate) > 1 / rate:
        return steps / length
    return float(rate)


def _stack(frames: list[np.ndarray]) -> torch.Tensor:
    """uint8 frames -> `f h w 3` float32 0..1, giving each frame's memory back as it is copied."""
    images = torch.empty((len(frames), *frames[0].shape), dtype=torch.float32)
    for index in range(len(frames)):
        images[index] = torch.from_numpy(frames[index])
        frames[index] = None
    return images.div_(255.0)
