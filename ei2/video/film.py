"""The frames of a span of a film: a video file decoded by FFmpeg."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av

from .decoding import Damage, decoded, decoder_of, last_key, packets_from
from .interlacing import deinterlaced
from .opening import audio_stream, opened, undecodable, video_stream
from .packets import Packets, read_packets
from .request import Request, VideoClip, beyond_end, evened, no_frames, uneven_warnings, video_clip
from .span import Span
from .timing import Even, even_out, even_rate

READABLE = 0.9  # of the requested frames: a truncated file with fewer is refused


class _Replan(Exception):
    """Decoding gave other frames than the packets promised. Read again with these corrections."""

    def __init__(self, hidden: frozenset[int] = frozenset(), timed: bool = True, seek: bool = True):
        self.hidden, self.timed, self.seek = hidden, timed, seek


def read_film(request: Request) -> VideoClip:
    plan = _Replan()
    while True:
        try:
            packets, even, base = _plan(request, plan)
            return _decode_film(request, packets, even, base, plan)
        except _Replan as other:
            plan = other


def _plan(request: Request, plan: _Replan) -> tuple[Packets, Even | None, float]:
    """What is known before decoding: the packets, the span's even rate (None: frames are
    only counted) and its start in seconds."""
    ticks = request.start + max(0, request.most - 1) * request.stride + 1 if request.most else 0
    count = ticks
    while True:
        packets = read_packets(request.path, count, plan.hidden, plan.timed, request.tick)
        if packets.count == 0:
            with opened(request.path) as container:
                video_stream(container, request.path)
            raise no_frames(request)
        if not packets.timed:
            return packets, None, 0.0
        even, base = evened(request, packets.times, packets.rates, None)
        covered = even.end if even else 0
        last_tick = max(0, request.most - 1) * request.stride + 1
        if packets.whole or not request.most or (even and covered >= last_tick):
            if even is None:
                raise beyond_end(request, packets.times, packets.rates)
            return packets, even, base
        count *= 2


def _decode_film(request: Request, packets: Packets, even: Even | None, base: float, plan: _Replan) -> VideoClip:
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
        first = max(0, first - 1) if even.slots[first : first + 1] != [0] else first  # the frame shown at the start
        key = last_key(packets, first) if plan.seek else (0, 0, 0)
        source = packets_from(container, stream, packets, key)
        if source is None:
            raise _Replan(plan.hidden, plan.timed, seek=False)
        damage, seen = Damage(), _Seen(packets, counted, key, plan)
        frames = seen.numbered(decoded(source, decoder_of(stream), damage), damage, first)
        expected = max(1, span.last + 1 - key[1])
        for number, frame in deinterlaced(frames):
            if number >= len(even.slots):  # more frames than packets; only if frames are counted
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
            raise undecodable(path) if damage else no_frames(request)
        if span.count == 0:
            raise beyond_end(request, [index / rate for index in range(seen.last + 1)], [rate])
        _check_cut_off(request, packets, seen, span)
    if counted:
        base = float(request.start / rate)
    warnings = _warnings(request, packets, span, damage, counted)
    return video_clip(
        span,
        float(rate / request.stride),
        base,
        float(rate if counted else even_rate(packets.times, packets.rates)),
        warnings,
        tuple(packets.starts),
    )


class _Seen:
    """Assigns each decoded frame its number in the file, and notices when the packets promised something else."""

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
                # a broken packet takes its frame's time stamp with it
                number, broken = self.last + 1 + damage.broken - broken, damage.broken
            else:
                number = self.packets.place(frame.pts, self.last)
            if number is None:
                if frame.pts in self.packets.places and damage:
                    continue  # out of order after the damage
                if self.key[0] and self.count == 0:
                    continue  # shown before the requested frame
                if not self.packets.whole and frame.pts is not None and frame.pts > max(self.packets.stamps):
                    return
                raise _Replan(self.plan.hidden, timed=False, seek=False)
            if self.count == 0 and not self.counted and number > self.key[1] and not damage:
                if self.key[0] and number > first:
                    raise _Replan(self.plan.hidden, True, seek=False)
                if not self.key[0]:  # undecodable frames at the start
                    raise _Replan(self.plan.hidden | set(self.packets.stamps[:number]), True, self.plan.seek)
            self.count += 1
            self.last = number
            self.numbers.add(number)
            yield number, frame

    def check_complete(self, damage: Damage, first: int, last: int) -> None:
        """Intact packets that give no frame do not count as frames (VP8's hidden ones, second fields)."""
        if damage or self.count == 0:
            return
        missing = [n for n in range(max(first, self.key[1]), last + 1) if n not in self.numbers]
        if len(missing) > max(2, 0.05 * (last + 1 - first)):
            hidden = self.plan.hidden | {self.packets.stamps[n] for n in missing}
            if hidden != self.plan.hidden:
                raise _Replan(hidden, True, self.plan.seek)


def _stated(packets: Packets) -> Fraction:
    return packets.rates[0] if packets.rates else Fraction(25)


def _counted(request: Request, packets: Packets, rate: Fraction) -> Even:
    """Frames without times, at the stated rate."""
    own = _stated(packets)
    if rate != own:
        return even_out([float(index / own) for index in range(packets.count)], float(request.start / rate), rate, None)
    return Even(rate, [index - request.start for index in range(packets.count)], max(0, packets.count - request.start))


def _sound_bytes(sound: av.AudioStream | None, fps: Fraction) -> float:
    """Bytes for the sound of one frame: the result, and the blocks it is assembled from."""
    if sound is None:
        return 0.0
    return 2 * 4 * min(2, sound.codec_context.layout.nb_channels) * sound.codec_context.sample_rate / float(fps)


def _check_cut_off(request: Request, packets: Packets, seen: _Seen, span: Span) -> None:
    """Raises ValueError if the file's index lists many more of the expected frames than can be read."""
    if not packets.whole or not packets.missing:
        return
    expected = packets.count + packets.missing
    if request.most:
        expected = min(expected, request.start + (request.most - 1) * request.stride + 1)
    readable = len(seen.numbers)
    if request.start < expected and seen.last + 1 < READABLE * expected:
        raise ValueError(
            f"'{request.path.name}' is damaged or cut off after {readable} readable frames: upload it "
            "again, or choose a span before the damage with start_frame and max_frames."
        )


def _warnings(request: Request, packets: Packets, span: Span, damage: Damage, counted: bool) -> list[str]:
    name, warnings = request.path.name, []
    if damage:
        warnings.append(
            f"'{name}' is damaged: {damage.packets} of the picture could not be decoded fully; "
            "lost frames are replaced by the frame before."
        )
    elif packets.whole and (packets.missing or packets.damaged):
        warnings.append(f"'{name}' is cut off at its end; the frames before were loaded.")
    if len(packets.starts) > 1:
        jumps = len(packets.starts) - 1
        warnings.append(
            f"The clock of '{name}' jumps {jumps} time{'s' * (jumps > 1)}, as in recordings that were joined; "
            "the parts were placed one after the other."
        )
    if not counted:
        warnings += uneven_warnings(request, span.even, span)
    if span.hdr:
        warnings.append(f"'{name}' is an HDR video (BT.2100); its colours were mapped to SDR, white at 203 cd/m².")
    return warnings
