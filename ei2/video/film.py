"""The frames of a span of a film: a video file decoded by FFmpeg."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import av

from ..wording import plural, was
from .cut_off import SLACK
from .decoding import Damage, decoded, decoder_of, last_key, packets_from
from .interlacing import deinterlaced
from .opening import audio_stream, opened, undecodable, video_stream
from .packets import Packets, read_packets
from .picture import AlphaUsed
from .request import (
    Request,
    VideoClip,
    beyond_end,
    evened,
    no_frames,
    transparency_warnings,
    uneven_warnings,
    video_clip,
)
from .span import Span
from .timing import Even, even_out, even_rate

READABLE = 0.9  # of the requested frames: a truncated file with fewer is refused
# In raw pictures the fourth byte of a pixel is often unused, and these codecs store it as it is.
UNUSED_ALPHA_CODECS = {"rawvideo", "huffyuv", "ffvhuff", "utvideo"}


@dataclass(frozen=True)
class _Plan:
    """How to read the file. hidden: time stamps of packets that give no frame. timed: the frames are found by their
    time stamps. seek: seeking is exact. alpha: the alpha is used although it is 0 at first."""

    hidden: frozenset[int] = frozenset()
    timed: bool = True
    seek: bool = True
    alpha: bool = False


class _Replan(Exception):
    """Decoding gave other frames than the packets promised. Read again with this plan."""

    def __init__(self, plan: _Plan):
        self.plan = plan


def read_film(request: Request) -> VideoClip:
    plan = _Plan()
    while True:
        try:
            packets, even, base = _plan(request, plan)
            return _decode_film(request, packets, even, base, plan)
        except _Replan as other:
            plan = other.plan
        except AlphaUsed:
            plan = replace(plan, alpha=True)


def _plan(request: Request, plan: _Plan) -> tuple[Packets, Even | None, float]:
    """What is known before decoding: the packets, the span's even rate (None: there are no times) and its start in
    seconds."""
    ticks = request.start + max(0, request.most - 1) * request.stride + 1 if request.most else 0
    count = ticks
    while True:
        packets = read_packets(request.path, count, plan.hidden, plan.timed, request.tick)
        if packets.count == 0:
            with opened(request.path) as container:
                video_stream(container, request.path)
            raise no_frames(request)
        if not packets.times:
            return packets, None, 0.0
        even, base = evened(request, packets.times, packets.rates, None, packets.known)
        covered = even.end if even else 0
        last_tick = max(0, request.most - 1) * request.stride + 1
        if packets.whole or not request.most or (even and covered >= last_tick):
            if even is None:
                raise beyond_end(request, packets.times, packets.rates)
            return packets, even, base
        count *= 2


def _decode_film(request: Request, packets: Packets, even: Even | None, base: float, plan: _Plan) -> VideoClip:
    path, counted = request.path, not packets.timed
    with opened(path) as container:
        stream = video_stream(container, path)
        sound = audio_stream(container)
        rate = request.rate or (even.rate if even else _stated(packets))
        if even is None:
            even, base = _counted(request, packets, rate), float(request.start / rate)
        aspect = stream.sample_aspect_ratio
        doubtful = stream.codec_context.name in UNUSED_ALPHA_CODECS and not plan.alpha
        make = lambda frame: request.pictures(frame, aspect, doubtful)
        span = Span(even, request.stride, request.most, make, request.room, _sound_bytes(sound, rate / request.stride))
        first = next((n for n, slot in enumerate(even.slots) if slot >= 0), len(even.slots))
        first = max(0, first - 1) if even.slots[first : first + 1] != [0] else first  # the frame shown at the start
        key = last_key(packets, first) if plan.seek else (0, 0, 0)
        source = packets_from(container, stream, packets, key)
        if source is None:
            raise _Replan(replace(plan, seek=False))
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
        if not counted:
            seen.check_complete(damage, first, seen.last if span.full else span.last)
            span.finish()
        if seen.count == 0:
            raise undecodable(path) if damage else no_frames(request)
        if span.count == 0:
            raise beyond_end(request, [index / rate for index in range(seen.last + 1)], [rate])
        _check_cut_off(request, packets, seen, span)
    warnings = _warnings(request, packets, span, damage)
    return video_clip(
        span,
        float(rate / request.stride),
        base,
        float(even_rate(packets.times[: packets.known], packets.rates) if packets.times else _stated(packets)),
        warnings,
        tuple(packets.starts),
    )


class _Seen:
    """Assigns each decoded frame its number in the file, and notices when the packets promised something else."""

    def __init__(self, packets: Packets, counted: bool, key: tuple[int, int, int], plan: _Plan):
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
                raise _Replan(replace(self.plan, timed=False, seek=False))
            if self.count == 0 and not self.counted and number > self.key[1] and not damage:
                if self.key[0] and number > first:
                    raise _Replan(replace(self.plan, seek=False))
                if not self.key[0]:  # undecodable frames at the start
                    raise _Replan(replace(self.plan, hidden=self.plan.hidden | set(self.packets.stamps[:number])))
            self.count += 1
            self.last = number
            self.numbers.add(number)
            yield number, frame

    def check_complete(self, damage: Damage, first: int, last: int) -> None:
        """Intact packets that give no frame do not count as frames (VP8's hidden ones, second fields). If there are
        few of them up to number `last`, or only at the end, they may also be lost frames, which leave a gap."""
        if damage or self.count == 0:
            return
        missing = [n for n in range(max(first, self.key[1]), last + 1) if n not in self.numbers]
        if sum(n < self.last for n in missing) <= max(2, 0.05 * (last + 1 - first)):
            missing = self._without_gap(missing)
        hidden = self.plan.hidden | {self.packets.stamps[n] for n in missing}
        if hidden != self.plan.hidden:
            raise _Replan(replace(self.plan, hidden=hidden))

    def _without_gap(self, missing: list[int]) -> list[int]:
        """Those of the missing frames whose neighbours follow each other like the other frames."""
        seen, times = sorted(self.numbers), self.packets.times
        steps = [times[b] - times[a] for a, b in zip(seen, seen[1:])]
        usual = sorted(steps)[len(steps) // 2] if steps else 0.0
        places = ((number, bisect(seen, number)) for number in missing)
        return [number for number, at in places if 0 < at < len(seen) and steps[at - 1] < 1.5 * usual]


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
            f"'{request.path.name}' is damaged or cut off after {plural(readable, 'readable frame')}: upload it "
            "again, or choose a span before the damage with start_frame and max_frames."
        )


def _warnings(request: Request, packets: Packets, span: Span, damage: Damage) -> list[str]:
    name, warnings = request.path.name, []
    if damage:
        warnings.append(
            f"'{name}' is damaged: {plural(damage.packets, 'packet')} of the picture could not be decoded fully; "
            "lost frames are replaced by the frame before."
        )
    if packets.whole and packets.reached < (packets.stated or 0.0) - SLACK - 2 / float(span.even.rate):
        warnings.append(
            f"'{name}' is damaged or cut off: only the first {packets.reached:.1f} of {packets.stated:.1f} seconds "
            "could be read."
        )
    elif packets.whole and (packets.missing or packets.damaged) and not damage:
        warnings.append(f"'{name}' is cut off at its end; the frames before were loaded.")
    elif span.lost and not damage:
        warnings.append(
            f"'{name}' is damaged: {plural(span.lost, 'frame')} could not be decoded and {was(span.lost)} replaced by "
            "the frame before."
        )
    if len(packets.starts) > 1:
        jumps = len(packets.starts) - 1
        warnings.append(
            f"The clock of '{name}' jumps {plural(jumps, 'time')}, as in recordings that were joined; "
            "the parts were placed one after the other."
        )
    if packets.times:
        warnings += uneven_warnings(request, span.even, span)
    warnings += transparency_warnings(request, span)
    if span.hdr:
        warnings.append(f"'{name}' is an HDR video (BT.2100); its colours were mapped to SDR, white at 203 cd/m².")
    return warnings
