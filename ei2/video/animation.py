"""Animated WebP, PNG and GIF, by imageio's `pillow` plugin. FFmpeg does not read animated WebP, and does not handle the
transparency of animated PNG as browsers do."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import imageio.v3 as iio
import numpy as np
from PIL import Image

from .opening import check_file
from .request import Request, VideoClip, beyond_end, evened, transparency_warnings, uneven_warnings, video_clip
from .span import Span
from .timing import GIF_ROUNDING, even_rate, unrounded

SIGNATURES = (b"GIF87a", b"GIF89a", b"\x89PNG\r\n\x1a\n")  # only these: Pillow starts other programs for some formats
SHORTEST, INSTEAD = 0.011, 0.1  # seconds: browsers show frames with a shorter duration for `INSTEAD`
STILL = 0.04  # seconds: duration of a still picture
ERRORS = (OSError, EOFError, SyntaxError, ValueError, IndexError, KeyError, struct.error, Image.DecompressionBombError)


class UnreadableAnimation(Exception):
    """Pillow cannot read the file."""


def is_animation(path: Path) -> bool:
    """Whether the file is a WebP, PNG or GIF, by its first bytes. Raises ValueError like `check_file`."""
    check_file(path)
    head = _head(path)
    return head.startswith(SIGNATURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(16)


class Animation:
    """An open animation: `count` frames, each with its duration, a multiple of `rounding` (seconds; 0: any)."""

    def __init__(self, file, rounding: float):
        self._file, self.rounding = file, rounding
        self.count = file.properties(index=...).n_images or 1

    def frame(self, index: int) -> tuple[av.VideoFrame, float] | None:
        """A frame and its duration in seconds; None if it cannot be decoded. Raises UnreadableAnimation
        if the first frame cannot be decoded."""
        try:
            # rotate: apply the EXIF orientation
            picture = self._file.read(index=index, mode="RGBA", rotate=True)
            stated = self._file.metadata(index=index).get("duration")
        except MemoryError:
            raise
        except ERRORS as error:
            if index == 0:
                raise UnreadableAnimation from error
            return None
        duration = float(stated or 0) / 1000
        if self.count == 1:
            duration = STILL
        elif duration < SHORTEST:
            duration = INSTEAD
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgba")
        frame.time_base = Fraction(1, 1000)
        return frame, duration

    def durations(self, frames: int, tick: Callable[[], object]) -> list[float]:
        """The durations of the first `frames` frames in seconds; fewer if the file is damaged."""
        seconds = []
        for index in range(min(frames, self.count)):
            tick()
            shown = self.frame(index)
            if shown is None:
                break
            seconds.append(shown[1])
        return seconds


@contextmanager
def opened_animation(path: Path) -> Iterator[Animation]:
    """Raises UnreadableAnimation for a damaged file."""
    try:
        file = iio.imopen(path, "r", plugin="pillow", legacy_mode=False)
        animation = Animation(file, GIF_ROUNDING if _head(path).startswith(b"GIF8") else 0.0)
    except MemoryError:
        raise
    except ERRORS as error:
        raise UnreadableAnimation from error
    with file:
        yield animation


def read_animation(request: Request) -> VideoClip:
    needed = request.start + (request.most - 1) * request.stride + 2 if request.most else 0
    while True:
        with opened_animation(request.path) as animation:
            count = min(needed or animation.count, animation.count)
            durations, total = animation.durations(count, request.tick), animation.count
        times = [sum(durations[:index]) for index in range(len(durations))]
        if animation.rounding:
            times = unrounded(times, animation.rounding)
        even, base = evened(request, times, [], durations[-1])
        ticks = max(0, request.most - 1) * request.stride + 1
        if count == total or len(durations) < count or (even and even.end >= ticks):
            break
        needed *= 2
    if even is None:
        raise beyond_end(request, times, [])
    span = Span(even, request.stride, request.most, lambda frame: request.pictures(frame, None), request.room)
    with opened_animation(request.path) as animation:  # again: Pillow 13 fails when it seeks back in a PNG
        _collect(request, animation, span)
    warnings = uneven_warnings(request, even, span) + transparency_warnings(request, span)
    if len(durations) < count:
        warnings.append(
            f"'{request.path.name}' is damaged from frame {len(durations)} on; the frames before were loaded."
        )
    return video_clip(span, float(even.rate / request.stride), base, float(even_rate(times, [])), warnings, ())


def _collect(request: Request, animation: Animation, span: Span) -> None:
    first = max((n for n, slot in enumerate(span.even.slots) if slot <= 0), default=0)
    for number in range(first, len(span.even.slots)):
        shown = animation.frame(number)
        if shown is not None:
            span.add(number, shown[0])
        if request.on_frame is not None:
            request.on_frame(number + 1 - first, max(1, span.last + 1 - first))
        if span.full:
            return
    span.finish()
