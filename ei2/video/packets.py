"""The times of a video's packets, read without decoding: a hundred times faster, and more reliable than headers."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av

from .cut_off import ends_in_a_page, missing_frames, stated_duration
from .opening import audio_stream, opened, video_stream
from .timing import even_rate

REORDERED = 16  # frames: the largest distance of B-frames from their presentation position (H.264 and H.265)
STEP_BACK = 0.1  # seconds: if the decoding time falls by more, another recording begins
STEP_AHEAD = 10.0  # seconds: FFmpeg's own limit (dts_delta_threshold)
LONG_STEP_AHEAD = 3600.0  # seconds: the limit for a pause in a file without sound, and in `PAUSING_FORMATS`
JUMPING_FORMATS = {"mpegts", "mpeg", "mpegvideo"}  # the standard allows their clock to jump
PAUSING_FORMATS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}  # one clock per file: a long step is a still picture
TICKING_FORMATS = {"avi"}  # their times are ticks in the order of decoding; a dropped frame is a tick without a packet
ENCODER_DELAY = 0.25  # seconds: a shorter gap at the start of ticks comes from the encoder; the sound has it, too
TICK = 500  # packets between two calls of `tick`


@dataclass
class Packets:
    """The frames of a video track in presentation order, as far as they were read.

    times: seconds from the first one; joined recordings follow one another. stamps: their time stamps in the file.
    starts: (file's seconds, our seconds) at the start of each recording. keys: (position in decoding order, position in
    presentation order, time stamp) of the keyframes. order: time stamp -> position in decoding order. places: time
    stamp -> positions in presentation order. whole: the file ends with them. timed: frames are found by their time
    stamps; otherwise they are counted, and `times` is empty except for `TICKING_FORMATS`. missing: how many more the
    file's index lists. damaged: the last packet is incomplete. reached, stated: the end of all tracks' packets, and the
    duration in the file's header (None: unknown), in seconds. rates: the rates stated by the file, the likeliest first.
    known: between so many of the first frames no other one can be that was not read; None: all.
    """

    times: list[float] = field(default_factory=list)
    stamps: list[int] = field(default_factory=list)
    starts: list[tuple[float, float]] = field(default_factory=list)
    keys: list[tuple[int, int, int]] = field(default_factory=list)
    order: dict[int, int] = field(default_factory=dict)
    rates: list[Fraction] = field(default_factory=list)
    last_duration: float = 0.0
    count: int = 0
    known: int | None = None
    whole: bool = True
    timed: bool = True
    missing: int = 0
    damaged: bool = False
    reached: float = 0.0
    stated: float | None = None
    places: dict[int, list[int]] = field(default_factory=dict)

    def place(self, stamp: int | None, after: int) -> int | None:
        """The first frame later than frame `after` that has this time stamp, or None."""
        places = self.places.get(stamp, [])
        at = bisect_left(places, after + 1)
        return places[at] if at < len(places) else None


def read_packets(
    path: str | Path,
    frames: int,
    hidden: frozenset[int] = frozenset(),
    timed: bool = True,
    tick: Callable[[], object] = lambda: None,
) -> Packets:
    """Reads at least the packets of the first `frames` frames (0 = all).

    hidden: time stamps of packets that give no frame. timed: whether to trust the times. tick: called now and then;
    exceptions from it end the reading. Raises ValueError.
    """
    with opened(path) as container:
        stream = video_stream(container, path)
        sound = audio_stream(container)
        result = Packets(rates=stated_rates(stream, container))
        entries, sounds, limit, reading = [], [], frames + REORDERED, True
        keyed, ends = False, {}
        for number, packet in enumerate(_demuxed(container)):
            if number % TICK == TICK - 1:
                tick()
            if not packet.size:
                continue
            result.damaged = packet.is_corrupt
            if packet.pts is not None:
                end = packet.pts + (packet.duration or 0)
                ends[packet.stream_index] = max(end, ends.get(packet.stream_index, end))
            if packet.stream_index != stream.index:
                if sound is not None and packet.stream_index == sound.index and packet.pts is not None:
                    sounds.append(float(packet.pts * packet.time_base))
                continue
            # The frames after a keyframe can be decoded even if an edit list cuts the keyframe itself.
            keyed = keyed or packet.is_keyframe
            if packet.is_discard or packet.pts in hidden or not keyed or _is_hidden(packet, stream):
                continue  # cut by an edit list, without a frame, or before the first keyframe
            entries.append((packet.pts, packet.dts, packet.is_keyframe, packet.duration or 0))
            if frames and len(entries) >= limit:
                reading = False
                break
        result.whole, result.count = reading, len(entries)
        name = container.format.name
        result.reached = max((float(end * container.streams[n].time_base) for n, end in ends.items()), default=0.0)
        if result.whole:
            result.missing = missing_frames(path, container, stream, ends.get(stream.index, 0))
            result.damaged = result.damaged or ends_in_a_page(path, container)
            result.stated = stated_duration(container, stream)
        result.timed = (
            timed and name not in TICKING_FORMATS and len(entries) > 0 and all(pts is not None for pts, *_ in entries)
        )
        if result.timed:
            _order(result, entries, stream.time_base, sounds if sound is not None else None, name)
        else:
            _count(result, entries, stream.time_base, name in TICKING_FORMATS, stream.codec_context.has_b_frames)
    return result


def stated_rates(stream: av.VideoStream, container: av.container.InputContainer) -> list[Fraction]:
    """The frame rates that a file states, the likeliest first."""
    rates = [stream.average_rate, stream.guessed_rate, stream.base_rate]
    inside = stream.codec_context.framerate
    # A raw stream states its rate only inside; the other rates are FFmpeg's assumption.
    rates = [inside, *rates] if stream.start_time is None and container.duration is None else [*rates, inside]
    return [Fraction(rate) for rate in rates if rate and 0.01 <= rate <= 1000]


def _demuxed(container: av.container.InputContainer):
    """All packets; a read error ends the file, as in a player."""
    try:
        yield from container.demux()
    except MemoryError:
        raise
    except av.FFmpegError:
        return


def _is_hidden(packet: av.Packet, stream: av.VideoStream) -> bool:
    """Whether a packet of VP8 is decoded but not shown; its time stamp is that of another one (RFC 6386, 9.1)."""
    return stream.codec_context.name == "vp8" and not memoryview(packet)[0] & 0x10


def _order(result: Packets, entries: list[tuple], time_base: Fraction, sounds: list[float] | None, name: str) -> None:
    """Fills in times, stamps, starts, keys and order from `entries` (pts, dts, key, duration), in decoding order.
    sounds: times of the sound's packets in seconds; None: there is no sound track. name: of the file format."""
    recordings, previous = [[]], None
    for number, (pts, dts, key, duration) in enumerate(entries):
        stamp = dts if dts is not None else pts
        if previous is not None:
            step = float((stamp - previous) * time_base)
            back = step < -STEP_BACK if dts is not None else pts < min(p for p, *_ in recordings[-1][:1])
            if back or _is_jump(step, float(previous * time_base), sounds, name):
                recordings.append([])
                previous = None
        if dts is not None or previous is None:
            previous = stamp
        recordings[-1].append((pts, number, key, duration))
        result.order.setdefault(pts, number)
    end = 0.0
    for recording in recordings:
        shown = sorted(recording)
        first = shown[0][0]
        result.starts.append((float(first * time_base), end))
        for pts, number, key, _ in shown:
            if key:
                result.keys.append((number, len(result.stamps), pts))
            result.places.setdefault(pts, []).append(len(result.stamps))
            result.stamps.append(pts)
            result.times.append(end + float((pts - first) * time_base))
        end = result.times[-1] + _usual_step(result.times[-len(shown) :], result.rates)
    result.last_duration = float(shown[-1][3] * time_base)
    if not result.whole and previous is not None:  # no later packet is shown before it is decoded
        result.known = len(result.stamps) - min(REORDERED, sum(pts > previous for pts, *_ in shown))


def _is_jump(step: float, before: float, sounds: list[float] | None, name: str) -> bool:
    """Whether a step ahead (seconds) is a clock error and not a pause: during a pause there is sound, or it is silent
    in a format whose clock does not jump."""
    jumps = name in JUMPING_FORMATS or (sounds is not None and name not in PAUSING_FORMATS)
    if step <= (STEP_AHEAD if jumps else LONG_STEP_AHEAD):
        return False
    return sounds is None or not any(before + 1 < time < before + step - 1 for time in sounds)


def _count(result: Packets, entries: list[tuple], time_base: Fraction, ticking: bool, reordered: bool) -> None:
    """Fills in the usual rate of frames that are only counted, and for `TICKING_FORMATS` times and starts, from
    `entries` as in `_order`. reordered: the track has B-frames."""
    ticks = sorted(dts for _, dts, *_ in entries if dts is not None)
    steps = sorted(b - a for a, b in zip(ticks, ticks[1:]) if b > a)
    if not steps:
        return
    rate = even_rate([float((tick - ticks[0]) * time_base) for tick in ticks], result.rates)
    result.rates.insert(0, rate)  # a stated one may be that of the ticks, of which most can be empty
    if not ticking or len(steps) + 1 < len(entries):
        return
    usual = steps[len(steps) // 2]
    start = ticks[1] - usual  # FFmpeg writes a late start of the picture as a gap after the first frame.
    # With B-frames the decoder holds a frame back until the next packet comes.
    ticks = [*ticks[1:], ticks[-1] + usual] if reordered else [start, *ticks[1:]]
    seconds = float(start * time_base)
    result.starts = [(seconds if seconds > ENCODER_DELAY else 0.0, 0.0)]
    result.times = [float((tick - ticks[0]) * time_base) for tick in ticks]


def _usual_step(times: list[float], rates: list[Fraction]) -> float:
    steps = sorted(b - a for a, b in zip(times, times[1:]))
    return steps[len(steps) // 2] if steps else float(1 / rates[0]) if rates else 0.04
