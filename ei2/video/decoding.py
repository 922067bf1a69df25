"""Packets into frames: from a frame that can be decoded alone on, and past what is broken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import av

from .packets import Packets

ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # FFmpeg's own ones drop the alpha
MARGINS = (0.0, 1.0, 5.0)  # seconds: some formats seek by the time of decoding, or only about there


@dataclass
class Damage:
    """What could not be decoded. broken: packets without a frame; patched: frames the decoder completed by guessing."""

    broken: int = 0
    patched: int = 0

    def __bool__(self) -> bool:
        return bool(self.broken or self.patched)

    @property
    def packets(self) -> str:
        count = self.broken + self.patched
        return f"{count} packet{'s' * (count > 1)}"


def decoder_of(stream: av.stream.Stream) -> av.CodecContext:
    """The decoder of a track: all threads, and one that gives the alpha where there is one."""
    name = stream.codec_context.name
    metadata = {key.lower(): value for key, value in stream.metadata.items()}
    if name in ALPHA_DECODERS and metadata.get("alpha_mode") == "1":
        try:
            return av.CodecContext.create(ALPHA_DECODERS[name], "r")
        except (av.FFmpegError, ValueError):
            pass  # an FFmpeg without libvpx shows the picture without its alpha
    stream.thread_type = "AUTO"
    return stream.codec_context


def demuxed(container: av.container.InputContainer, stream: av.stream.Stream) -> Iterator[av.Packet]:
    """The packets of one track that hold something; where the file cannot be read further, it ends."""
    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    except MemoryError:
        raise
    except av.FFmpegError:
        return


def decoded(packets: Iterator[av.Packet], decoder: av.CodecContext, damage: Damage) -> Iterator[av.frame.Frame]:
    """The frames in the order they are shown. A packet that cannot be decoded is counted in `damage` and skipped."""
    for packet in chain(packets, [None, None]):  # None: what the decoder still holds; again after a broken one
        try:
            frames = decoder.decode(packet)
        except MemoryError:
            raise
        except EOFError:  # av's own; all frames are out
            return
        except av.FFmpegError:
            damage.broken += 1
            continue
        for frame in frames:
            damage.patched += bool(getattr(frame, "is_corrupt", False))
            yield frame


def last_key(packets: Packets, frame: int) -> tuple[int, int, int]:
    """The frame that can be decoded alone, last before or at number `frame`: (place in the order of decoding, place in
    the order shown, time stamp). The very first frame where seeking would not be exact."""
    unique = len(packets.starts) == 1 and len(packets.order) == len(packets.stamps)
    keys = [key for key in packets.keys if key[1] <= frame] if packets.timed and unique else []
    return max(keys, key=lambda key: key[0], default=(0, 0, 0))


def packets_from(
    container: av.container.InputContainer, stream: av.VideoStream, packets: Packets, key: tuple[int, int, int]
) -> Iterator[av.Packet] | None:
    """The track's packets from `key` on; None where the container cannot seek there (it then has to be opened anew)."""
    number, _, stamp = key
    if number == 0:
        return demuxed(container, stream)
    for earlier in MARGINS:
        try:
            container.seek(stamp - round(earlier / stream.time_base), stream=stream)
        except av.FFmpegError:
            continue
        rest = demuxed(container, stream)
        for packet in rest:
            place = packets.order.get(packet.pts, -1)
            if place == number:
                return chain([packet], rest)
            if place > number:
                break
    return None
