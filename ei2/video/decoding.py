"""Decodes packets into frames, starting at a keyframe and skipping broken packets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import av

from .packets import Packets

ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # FFmpeg's own decoders drop the alpha
MARGINS = (0.0, 1.0, 5.0)  # seconds: some formats seek by decoding time, or only approximately


@dataclass
class Damage:
    """What could not be decoded. broken: packets without a frame; patched:
    frames with parts the decoder had to guess."""

    broken: int = 0
    patched: int = 0

    def __bool__(self) -> bool:
        return bool(self.broken or self.patched)

    @property
    def packets(self) -> int:
        return self.broken + self.patched


def decoder_of(stream: av.stream.Stream) -> av.CodecContext:
    """A decoder for a track that uses all threads and keeps the alpha if there is one."""
    name = stream.codec_context.name
    metadata = {key.lower(): value for key, value in stream.metadata.items()}
    if name in ALPHA_DECODERS and metadata.get("alpha_mode") == "1":
        try:
            return av.CodecContext.create(ALPHA_DECODERS[name], "r")
        except (av.FFmpegError, ValueError):
            pass  # without libvpx, FFmpeg decodes the picture without its alpha
    stream.thread_type = "AUTO"
    return stream.codec_context


def demuxed(container: av.container.InputContainer, stream: av.stream.Stream) -> Iterator[av.Packet]:
    """The non-empty packets of one track, up to where the file can be read."""
    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    except MemoryError:
        raise
    except av.FFmpegError:
        return


def decoded(packets: Iterator[av.Packet], decoder: av.CodecContext, damage: Damage) -> Iterator[av.frame.Frame]:
    """The frames in presentation order. Packets that cannot be decoded are counted in `damage` and skipped."""
    for packet in chain(packets, [None, None]):  # None flushes the decoder; twice, in case of a broken packet
        try:
            frames = decoder.decode(packet)
        except MemoryError:
            raise
        except EOFError:  # av's own: no more frames
            return
        except av.FFmpegError:
            damage.broken += 1
            continue
        for frame in frames:
            damage.patched += bool(getattr(frame, "is_corrupt", False))
            yield frame


def last_key(packets: Packets, frame: int) -> tuple[int, int, int]:
    """The last keyframe at or before number `frame`: (position in decoding order, position in presentation order, time
    stamp). The first frame if seeking would not be exact."""
    unique = len(packets.starts) == 1 and len(packets.order) == len(packets.stamps)
    keys = [key for key in packets.keys if key[1] <= frame] if packets.timed and unique else []
    return max(keys, key=lambda key: key[0], default=(0, 0, 0))


def packets_from(
    container: av.container.InputContainer, stream: av.VideoStream, packets: Packets, key: tuple[int, int, int]
) -> Iterator[av.Packet] | None:
    """The track's packets from `key` on; None if the container cannot seek there (it must then be reopened)."""
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
