"""Reads the frames of a span of a video file, at an even rate."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from .animation import UnreadableAnimation, is_animation, read_animation
from .film import read_film
from .opening import memory_explained
from .request import Request, VideoClip
from .sizes import check_fit, check_size
from .timing import MOST_RATE


def read_frames(
    path: str | Path,
    start_frame: int = 0,
    frame_stride: int = 1,
    max_frames: int = 0,
    width: int = 0,
    height: int = 0,
    fit: str = "crop",
    on_frame: Callable[[int, int], object] | None = None,
    max_bytes: float | None = None,
    frame_rate: float = 0.0,
    background: tuple[int, int, int] = (0, 0, 0),
) -> VideoClip:
    """Reads frames `start_frame`, `start_frame + frame_stride`, … (at most `max_frames`; 0 = to the end) of a video.

    width, height: pixels, multiples of 8; 0 = from the source: one 0 keeps the aspect ratio, two keep the source's
    size, with its edges cropped to multiples of 8. fit: "crop" fills the size and cuts off the rest, "pad" shows
    everything between black bars, "stretch" distorts. on_frame(decoded, expected) is called after each decoded frame,
    kept or not, and with (0, 1) while the file is scanned; exceptions from it end the reading. max_bytes: limit for the
    result's memory, including its sound. frame_rate: frames per second before the stride; 0 = the file's. A missing
    frame (a pause, a broken packet) is replaced by the previous one. `start_frame` counts the file's frames, or, with
    `frame_rate`, frames at that rate. background: R, G, B in 0..255 under transparent areas. Raises ValueError.
    """
    check_size(width, height)
    check_fit(fit)
    for name, value, least in (
        ("start_frame", start_frame, 0),
        ("frame_stride", frame_stride, 1),
        ("max_frames", max_frames, 0),
    ):
        if value < least:
            raise ValueError(f"{name} is {value}, but must be at least {least}.")
    if not 0 <= frame_rate <= MOST_RATE:  # also true for NaN
        raise ValueError(f"frame_rate is {frame_rate}, but must be 0 (the file's) to {MOST_RATE}.")
    rate = Fraction(frame_rate).limit_denominator(1001) if frame_rate else None
    if rate == 0:
        raise ValueError(f"frame_rate is {frame_rate}, but must be 0 (the file's) or at least 0.001.")
    request = Request(
        Path(path), start_frame, frame_stride, max_frames, width, height, fit, rate, background, max_bytes, on_frame
    )
    with memory_explained(path):
        if is_animation(request.path):
            try:
                return read_animation(request)
            except UnreadableAnimation:
                pass  # FFmpeg can read some damaged files
        return read_film(request)
