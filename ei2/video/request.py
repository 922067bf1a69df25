"""The request for a span of a video file, its result, and the even frame rate that both refer to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import torch

from ..wording import plural
from .picture import Pictures
from .span import Span
from .timing import MOST_RATE, Even, even_out, even_rate, has_holes, is_even

Starts = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class VideoClip:
    """A span of a video.

    images: `f h w 3`, float32, 0..1. fps: frames per second after the stride. start_seconds, end_seconds: the span,
    counted from the file's first frame. source_width, source_height: pixels as displayed (rotated, square pixels).
    source_fps: the rate of the file's frames. mask: `f h w`, float32, 1 where the video is transparent. warnings: one
    sentence for each deviation from what the file states. starts: for each of the recordings joined in the file, its
    clock and ours at its start (seconds), for `read_audio`; empty if the file has no times.
    """

    images: torch.Tensor
    fps: float
    start_seconds: float
    end_seconds: float
    source_width: int
    source_height: int
    source_fps: float
    mask: torch.Tensor
    warnings: tuple[str, ...] = ()
    starts: Starts = ()

    @property
    def frame_count(self) -> int:
        return self.images.shape[0]


@dataclass(frozen=True)
class Request:
    path: Path
    start: int
    stride: int
    most: int
    width: int
    height: int
    fit: str
    rate: Fraction | None
    background: tuple[int, int, int]
    room: float | None
    on_frame: Callable[[int, int], object] | None

    def pictures(self, first: av.VideoFrame, aspect: Fraction | None, doubtful: bool = False) -> Pictures:
        """For a video that begins with this frame. doubtful: an alpha that is 0 throughout the frame is not used."""
        made = Pictures.of(first, self.width, self.height, self.fit, aspect, self.background, self.path.name)
        made.ignores_alpha = doubtful and made.is_transparent(first)
        return made

    def tick(self) -> None:
        """Lets the caller end the reading before the first frame."""
        if self.on_frame is not None:
            self.on_frame(0, 1)


def evened(
    request: Request, times: list[float], stated: list[Fraction], last_duration: float | None, known: int | None = None
) -> tuple[Even | None, float]:
    """The frames at an even rate, and the span's start; None for a start beyond the end. known: as in `Packets`."""
    rate = _tick_rate(request, times[:known], stated)
    if rate is not None:
        base = float(request.start / rate)
        even = even_out(times, base, rate, last_duration)
        return (even if even.end > 0 else None), base
    if request.start >= len(times):
        return None, 0.0
    base = times[request.start]
    own = even_rate(times[:known], stated)
    if is_even(times[:known], own):  # A few frames of it may seem to have another rate if their times tremble.
        return Even(own, [index - request.start for index in range(len(times))], len(times) - request.start), base
    span = times[request.start :]
    if request.most:
        # the usual rate within the span, not of frames read beyond it
        span = span[: max(2, (request.most - 1) * request.stride + 2)]
    rate = even_rate(span, stated)
    return even_out(times, base, rate if rate <= MOST_RATE else own, last_duration), base


def _tick_rate(request: Request, times: list[float], stated: list[Fraction]) -> Fraction | None:
    """The rate whose ticks `start_frame` counts; None: it counts the file's frames."""
    if request.rate is not None:
        return request.rate
    own = even_rate(times, stated)
    return own if has_holes(times, own) else None


def video_clip(
    span: Span, fps: float, base: float, source_fps: float, warnings: list[str], starts: Starts
) -> VideoClip:
    count = span.count
    mask = span.mask()
    return VideoClip(
        span.images(), fps, base, base + count / fps, *span.pictures.source, source_fps, mask, tuple(warnings), starts
    )


def no_frames(request: Request) -> ValueError:
    return ValueError(f"'{request.path.name}' has no frames: choose another video or export it again.")


def beyond_end(request: Request, times: list, stated: list[Fraction]) -> ValueError:
    rate, count = _tick_rate(request, times, stated), len(times)
    if rate is not None:
        count = max(1, even_out(times, 0.0, rate, None).end)
    return ValueError(
        f"start_frame {request.start} is beyond the end of '{request.path.name}', which has {plural(count, 'frame')}: "
        f"use 0{f' to {count - 1}' * (count > 1)}."
    )


def uneven_warnings(request: Request, even: Even, span: Span) -> list[str]:
    last = (span.count - 1) * span.stride
    slots = [slot for slot in even.slots if 0 <= slot <= last]
    gaps = last + 1 - len(set(slots))
    if request.rate is not None or not (gaps or len(slots) != len(set(slots))):
        return []
    return [
        f"The frames of '{request.path.name}' have a variable rate, or some are missing; they were resampled to "
        f"{float(even.rate):.6g} per second, {gaps} of them repeated. frame_rate sets another rate."
    ]


def transparency_warnings(request: Request, span: Span) -> list[str]:
    if not span.transparent:
        return []
    return [
        f"'{request.path.name}' is fully transparent in this part, so only the background is seen and mask is 1; "
        "if it should not be, export it without an alpha channel."
    ]
