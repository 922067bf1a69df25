"""The frames of a span of a video file, at an even rate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import torch

from .animation import Animation, UnreadableAnimation, is_animation, opened_animation
from .decoding import Damage, decoded, decoder_of, last_key, packets_from
from .interlacing import deinterlaced
from .opening import audio_stream, memory_explained, opened, undecodable, video_stream
from .packets import Packets, read_packets
from .picture import Pictures
from .sizes import check_fit, check_size
from .span import Span
from .timing import Even, even_out, even_rate, has_holes

MOST_RATE = 1000.0  # frames per second
READABLE = 0.9  # of the wanted frames: with fewer, a file that is cut off is refused
Starts = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class VideoClip:
    """A span of a video.

    images: `f h w 3`, float32, 0..1. fps: frames per second after the stride. start_seconds, end_seconds: the span,
    counted from the file's first frame. source_width, source_height: pixels as displayed (rotated, square pixels).
    source_fps: the rate of the file's frames. mask: `f h w`, float32, 1 where the video is transparent. warnings: one
    sentence each about what is not as the file says. starts: for each of the recordings that were joined into the file,
    its clock and ours at its beginning (seconds), for `read_audio`; empty where the file has no times.
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
class _Request:
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

    def pictures(self, first: av.VideoFrame, aspect: Fraction | None) -> Pictures:
        return Pictures.of(first, self.width, self.height, self.fit, aspect, self.background, self.path.name)

    def tick(self) -> None:
        """Lets the caller end the reading before the first frame."""
        if self.on_frame is not None:
            self.on_frame(0, 1)


class _Replan(Exception):
    """The packets promised other frames than came out: read again, with this."""

    def __init__(self, hidden: frozenset[int] = frozenset(), timed: bool = True, seek: bool = True):
        self.hidden, self.timed, self.seek = hidden, timed, seek


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
    """Read frames `start_frame`, `start_frame + frame_stride`, … (at most `max_frames`; 0 = to the end) of a video.

    width, height: pixels, multiples of 8; 0 = from the source: one 0 keeps the aspect ratio, two keep the source's
    size, with its edges cropped to multiples of 8. fit: "crop" fills the size and cuts what sticks out, "pad" shows
    everything between black bars, "stretch" distorts. on_frame(decoded, expected) is called after each decoded frame,
    kept or not, and with (0, 1) while the file is looked through; what it raises ends the reading. max_bytes: memory
    that the result may take, its sound included. frame_rate: frames per second before the stride; 0 = the file's.
    Where a frame is missing (a pause, a broken packet), the one before stands there. `start_frame` counts the file's
    frames, with a `frame_rate` those of that rate. background: R, G, B in 0..255 under transparent places.
    Raises ValueError.
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
    if not 0 <= frame_rate <= MOST_RATE:  # not: NaN
        raise ValueError(f"frame_rate is {frame_rate}, but must be 0 (the file's) to {MOST_RATE:.0f}.")
    rate = Fraction(frame_rate).limit_denominator(1001) if frame_rate else None
    request = _Request(
        Path(path), start_frame, frame_stride, max_frames, width, height, fit, rate, background, max_bytes, on_frame
    )
    with memory_explained(path):
        if is_animation(request.path):
            try:
                return _read_animation(request)
            except UnreadableAnimation:
                pass  # FFmpeg reads some of the damaged ones
        return _read_film(request)


def _read_film(request: _Request) -> VideoClip:
    plan = _Replan()
    while True:
        try:
            packets, even, base = _plan(request, plan)
            return _decode_film(request, packets, even, base, plan)
        except _Replan as other:
            plan = other


def _plan(request: _Request, plan: _Replan) -> tuple[Packets, Even | None, float]:
    """What is known before the decoding: the packets, the even rate of the span (None: frames are only counted) and the
    span's beginning in seconds."""
    ticks = request.start + max(0, request.most - 1) * request.stride + 1 if request.most else 0
    wanted = ticks
    while True:
        packets = read_packets(request.path, wanted, plan.hidden, plan.timed, request.tick)
        if packets.count == 0:
            with opened(request.path) as container:
                video_stream(container, request.path)
            raise _no_frames(request)
        if not packets.timed:
            return packets, None, 0.0
        even, base = _evened(request, packets.times, packets.rates, None)
        covered = even.end if even else 0
        ticks_wanted = max(0, request.most - 1) * request.stride + 1
        if packets.whole or not request.most or (even and covered >= ticks_wanted):
            if even is None:
                raise _beyond_end(request, packets.times, packets.rates)
            return packets, even, base
        wanted *= 2


def _evened(
    request: _Request, times: list[float], stated: list[Fraction], last_duration: float | None
) -> tuple[Even | None, float]:
    """The frames at an even rate, and the span's beginning; None for a start beyond the end."""
    rate = _tick_rate(request, times, stated)
    if rate is not None:
        base = float(request.start / rate)
        even = even_out(times, base, rate, last_duration)
        return (even if even.end > 0 else None), base
    if request.start >= len(times):
        return None, 0.0
    base = times[request.start]
    span = times[request.start :]
    if request.most:
        # the usual rate in the span, not that of what is read behind it
        span = span[: max(2, (request.most - 1) * request.stride + 2)]
    return even_out(times, base, even_rate(span, stated), last_duration), base


def _tick_rate(request: _Request, times: list[float], stated: list[Fraction]) -> Fraction | None:
    """The rate whose ticks `start_frame` counts; None: it counts the frames that are there."""
    if request.rate is not None:
        return request.rate
    own = even_rate(times, stated)
    return own if has_holes(times, own) else None


def _decode_film(request: _Request, packets: Packets, even: Even | None, base: float, plan: _Replan) -> VideoClip:
    path, counted = request.path, even is None
    with opened(path) as container:
        stream = video_stream(container, path)
        sound = audio_stream(container)
        rate = request.rate or (even.rate if even else _stated(packets))
        if counted:
            even = _counted(request, packets, rate)
        aspect = stream.sample_aspect_ratio
        make = lambda frame: request.pictures(frame, aspect)
        span = Span(even, request.stride, request.most, make, request.room, _sound_bytes(sound, rate / request.stride))
        first = next((n for n, slot in enumerate(even.slots) if slot >= 0), len(even.slots))
        first = max(0, first - 1) if even.slots[first : first + 1] != [0] else first  # the one shown at the beginning
        key = last_key(packets, first) if plan.seek else (0, 0, 0)
        source = packets_from(container, stream, packets, key)
        if source is None:
            raise _Replan(plan.hidden, plan.timed, seek=False)
        damage, seen = Damage(), _Seen(packets, counted, key, plan)
        frames = seen.numbered(decoded(source, decoder_of(stream), damage), damage, first)
        expected = max(1, span.last + 1 - key[1])
        for number, frame in deinterlaced(frames):
            if number >= len(even.slots):  # more frames than packets, counted ones only
                even.slots.append(even.slots[-1] + 1)
            span.add(number, frame)
            if request.on_frame is not None:
                done = number + 1 - key[1]
                request.on_frame(done, max(expected, done))
            if span.full:
                break
        else:
            if not counted:
                seen.check_complete(damage, first, span.last)
                span.finish()
        if seen.count == 0:
            raise undecodable(path) if damage else _no_frames(request)
        if span.count == 0:
            raise _beyond_end(request, [index / rate for index in range(seen.last + 1)], [rate])
        _check_cut_off(request, packets, seen, span)
    if counted:
        base = float(request.start / rate)
    warnings = _warnings(request, packets, span, damage, counted)
    return _clip(
        span,
        float(rate / request.stride),
        base,
        float(rate if counted else even_rate(packets.times, packets.rates)),
        warnings,
        tuple(packets.starts),
    )


class _Seen:
    """Gives every decoded frame its number in the file, and notices where the packets promised something else."""

    def __init__(self, packets: Packets, counted: bool, key: tuple[int, int, int], plan: _Replan):
        self.packets, self.counted, self.key, self.plan = packets, counted, key, plan
        self.count, self.last = 0, key[1] - 1
        self.numbers: set[int] = set()

    def numbered(
        self, frames: Iterator[av.VideoFrame], damage: Damage, first: int
    ) -> Iterator[tuple[int, av.VideoFrame]]:
        broken = 0
        for frame in frames:
            if self.counted:
                # a broken packet takes its frame's time
                number, broken = self.last + 1 + damage.broken - broken, damage.broken
            else:
                number = self.packets.place(frame.pts, self.last)
            if number is None:
                if frame.pts in self.packets.places and damage:
                    continue  # out of order behind the damage
                if self.key[0] and self.count == 0:
                    continue  # shown before the frame that was sought
                if not self.packets.whole and frame.pts is not None and frame.pts > max(self.packets.stamps):
                    return
                raise _Replan(self.plan.hidden, timed=False, seek=False)
            if self.count == 0 and not self.counted and number > self.key[1] and not damage:
                if self.key[0] and number > first:
                    raise _Replan(self.plan.hidden, True, seek=False)
                if not self.key[0]:  # frames at the beginning that cannot be decoded
                    raise _Replan(self.plan.hidden | set(self.packets.stamps[:number]), True, self.plan.seek)
            self.count += 1
            self.last = number
            self.numbers.add(number)
            yield number, frame

    def check_complete(self, damage: Damage, first: int, last: int) -> None:
        """Packets that give no frame, without being broken, are no frames (VP8's hidden ones, second fields)."""
        if damage or self.count == 0:
            return
        missing = [n for n in range(max(first, self.key[1]), last + 1) if n not in self.numbers]
        if len(missing) > max(2, 0.05 * (last + 1 - first)):
            hidden = self.plan.hidden | {self.packets.stamps[n] for n in missing}
            if hidden != self.plan.hidden:
                raise _Replan(hidden, True, self.plan.seek)


def _read_animation(request: _Request) -> VideoClip:
    wanted = request.start + (request.most - 1) * request.stride + 2 if request.most else 0
    while True:
        with opened_animation(request.path) as animation:
            asked = min(wanted or animation.count, animation.count)
            durations, total = animation.durations(asked, request.tick), animation.count
        times = [sum(durations[:index]) for index in range(len(durations))]
        even, base = _evened(request, times, [], durations[-1])
        ticks = max(0, request.most - 1) * request.stride + 1
        if asked == total or len(durations) < asked or (even and even.end >= ticks):
            break
        wanted *= 2
    if even is None:
        raise _beyond_end(request, times, [])
    span = Span(even, request.stride, request.most, lambda frame: request.pictures(frame, None), request.room)
    with opened_animation(request.path) as animation:  # anew: Pillow 13 goes wrong when it goes back in a PNG
        _collect(request, animation, span)
    warnings = _uneven_warning(request, even, span)
    if len(durations) < asked:
        warnings.append(
            f"'{request.path.name}' is damaged from frame {len(durations)} on; the frames before were loaded."
        )
    return _clip(span, float(even.rate / request.stride), base, float(even_rate(times, [])), warnings, ())


def _collect(request: _Request, animation: Animation, span: Span) -> None:
    first = max((n for n, slot in enumerate(span.even.slots) if slot <= 0), default=0)
    for number in range(first, len(span.even.slots)):
        one = animation.frame(number)
        if one is not None:
            span.add(number, one[0])
        if request.on_frame is not None:
            request.on_frame(number + 1 - first, max(1, span.last + 1 - first))
        if span.full:
            return
    span.finish()


def _clip(span: Span, fps: float, base: float, source_fps: float, warnings: list[str], starts: Starts) -> VideoClip:
    count = span.count
    mask = span.mask()
    return VideoClip(
        span.images(), fps, base, base + count / fps, *span.pictures.source, source_fps, mask, tuple(warnings), starts
    )


def _stated(packets: Packets) -> Fraction:
    return packets.rates[0] if packets.rates else Fraction(25)


def _counted(request: _Request, packets: Packets, rate: Fraction) -> Even:
    """Frames without times, at the stated rate."""
    own = _stated(packets)
    if rate != own:
        return even_out([float(index / own) for index in range(packets.count)], float(request.start / rate), rate, None)
    return Even(rate, [index - request.start for index in range(packets.count)], max(0, packets.count - request.start))


def _sound_bytes(sound: av.AudioStream | None, fps: Fraction) -> float:
    """Memory for the sound of one frame: the result, and the blocks it is made of."""
    if sound is None:
        return 0.0
    return 2 * 4 * min(2, sound.codec_context.layout.nb_channels) * sound.codec_context.sample_rate / float(fps)


def _no_frames(request: _Request) -> ValueError:
    return ValueError(f"'{request.path.name}' has no frames: choose another video or export it again.")


def _beyond_end(request: _Request, times: list, stated: list[Fraction]) -> ValueError:
    rate, count = _tick_rate(request, times, stated), len(times)
    if rate is not None:
        count = max(1, even_out(times, 0.0, rate, None).end)
    return ValueError(
        f"start_frame {request.start} is beyond the end of '{request.path.name}', which has {count} "
        f"frames: use 0 to {count - 1}."
    )


def _check_cut_off(request: _Request, packets: Packets, seen: _Seen, span: Span) -> None:
    """Raise ValueError where the file's index names many more of the wanted frames than can be read."""
    if not packets.whole or not packets.missing:
        return
    wanted = packets.count + packets.missing
    if request.most:
        wanted = min(wanted, request.start + (request.most - 1) * request.stride + 1)
    readable = len(seen.numbers)
    if request.start < wanted and seen.last + 1 < READABLE * wanted:
        raise ValueError(
            f"'{request.path.name}' is damaged or cut off after {readable} readable frames: upload it "
            "again, or choose a span before the damage with start_frame and max_frames."
        )


def _warnings(request: _Request, packets: Packets, span: Span, damage: Damage, counted: bool) -> list[str]:
    name, found = request.path.name, []
    if damage:
        found.append(
            f"'{name}' is damaged: {damage.packets} of the picture could not be decoded fully; "
            "where a frame was lost, the one before stands in its place."
        )
    elif packets.whole and (packets.missing or packets.damaged):
        found.append(f"'{name}' is cut off at its end; the frames before were loaded.")
    if len(packets.starts) > 1:
        jumps = len(packets.starts) - 1
        found.append(
            f"The clock of '{name}' jumps {jumps} time{'s' * (jumps > 1)}, as in recordings that were joined; "
            "they were put one after the other."
        )
    if not counted:
        found += _uneven_warning(request, span.even, span)
    if span.hdr:
        found.append(f"'{name}' is an HDR video (BT.2100); its colours were mapped to SDR, white at 203 cd/m².")
    return found


def _uneven_warning(request: _Request, even: Even, span: Span) -> list[str]:
    last = (span.count - 1) * span.stride
    slots = [slot for slot in even.slots if 0 <= slot <= last]
    gaps = last + 1 - len(set(slots))
    if request.rate is not None or not (gaps or len(slots) != len(set(slots))):
        return []
    return [
        f"The frames of '{request.path.name}' come at a variable rate, or some are missing; they were made even at "
        f"{float(even.rate):.6g} per second, {gaps} of them repeated. frame_rate sets another rate."
    ]
