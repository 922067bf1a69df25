"""The sound of a span of a video file, in step with its frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import av.filter
import numpy as np
import torch

from ..wording import plural, was
from .animation import is_animation
from .decoding import Damage, decoded, demuxed
from .opening import audio_stream, memory_explained, opened, video_stream
from .packets import read_packets

LEAD = 1.0  # seconds: a sound decoder needs some packets before its output is right
# Gaps longer than this (seconds) become silence; shorter ones are rounding of the file's times.
GAP = 0.015
FRAMES_OF_A_SECOND = 60


def read_audio(
    path: str | Path,
    start_seconds: float,
    duration: float,
    starts: tuple[tuple[float, float], ...] | None = None,
    warn: Callable[[str], object] | None = None,
    tick: Callable[[float], object] | None = None,
) -> dict | None:
    """Reads the sound of a span (seconds, counted from the first frame) in
    ComfyUI's AUDIO format, or None without sound.

    Returns {"waveform": `1 channels samples` float32, "sample_rate": Hz}; always `duration` long, with silence where
    sound is missing or cannot be decoded; more than two channels are mixed to stereo. starts: of the `VideoClip`; None
    = find them. warn(sentence): called for deviations from what the file states. tick(share done, 0..1): called now and
    then; exceptions from it end the reading. Raises ValueError for a file that cannot be opened.
    """
    path = Path(path)
    if is_animation(path):
        return None
    warn, tick = warn or (lambda sentence: None), tick or (lambda share: None)
    with memory_explained(path), opened(path) as container:
        stream = audio_stream(container)
        if stream is None:
            return None
        if starts is None:
            frames = int((start_seconds + duration) * FRAMES_OF_A_SECOND) + 1
            starts = tuple(read_packets(path, frames, tick=lambda: tick(0.0)).starts) if container.streams.video else ()
        if not starts:
            starts = ((_beginning(container, path), 0.0),)
        rate = stream.codec_context.sample_rate
        channels = stream.codec_context.layout.nb_channels
        waveform = np.zeros((min(channels, 2), max(1, round(duration * rate))), np.float32)
        damage = Damage()
        try:
            clock = _Clock(starts, start_seconds)
            packets = _span(container, stream, clock, duration, tick)
            for first, samples in _even(decoded(packets, stream.codec_context, damage), clock, stream, rate):
                begin, end = max(0, first), min(waveform.shape[1], first + samples.shape[1])
                if begin < end:
                    waveform[:, begin:end] = samples[:, begin - first : end - first]
        except MemoryError:
            raise
        except (av.FFmpegError, ValueError, TypeError) as error:  # a fault of the sound must not lose the frames
            warn(f"The sound of '{path.name}' could not be read to the end ({error}); the rest is silence.")
        if damage:
            warn(
                f"The sound of '{path.name}' is damaged: {plural(damage.packets, 'packet')} could not be decoded and "
                f"{was(damage.packets)} replaced by silence."
            )
    if channels > 2:
        waveform /= max(1.0, np.abs(waveform).max())  # a mix may exceed full scale
    return {"waveform": torch.from_numpy(waveform)[None], "sample_rate": int(rate)}


class _Clock:
    """Converts the file's times (seconds) to times in the span. starts: as in `VideoClip`."""

    def __init__(self, starts: tuple[tuple[float, float], ...], origin: float):
        self.starts, self.origin = starts, origin
        self._at, self._behind = 0, starts[0][0]

    def time(self, stamp: float) -> float:
        """Call it for the packets in file order: a recording ends where the
        clock jumps to the start of the next one."""
        if self._at + 1 < len(self.starts):
            there = self.starts[self._at + 1][0]
            step = abs(stamp - self._behind)
            if step > 0.5 and abs(stamp - there) < step:
                self._at += 1
        self._behind = stamp
        file, ours = self.starts[self._at]
        return stamp - file + ours - self.origin


def _beginning(container: av.container.InputContainer, path: Path) -> float:
    """The start of the picture by the file's clock, in seconds."""
    if not container.streams.video:
        return 0.0
    stream = video_stream(container, path)
    return float((stream.start_time or 0) * stream.time_base)


def _span(
    container: av.container.InputContainer,
    stream: av.AudioStream,
    clock: _Clock,
    duration: float,
    tick: Callable[[float], object],
) -> Iterator[av.Packet]:
    """The packets of the span, from slightly before it, with `pts` in the span's time."""
    if len(clock.starts) == 1:
        begin = clock.origin + clock.starts[0][0] - LEAD
        if begin > 0:
            try:
                container.seek(int(begin / stream.time_base), stream=stream)
            except av.FFmpegError:
                pass  # cannot seek: read from the start
    time = -LEAD
    for number, packet in enumerate(demuxed(container, stream)):
        if number % 20 == 0:
            tick(min(1.0, max(0.0, time / duration)) if duration else 1.0)
        if packet.pts is not None:
            time = clock.time(float(packet.pts * stream.time_base))
            packet.pts = packet.dts = round(time / stream.time_base)
        if time > duration + LEAD:
            return
        if time >= -LEAD - 0.5:
            yield packet


def _even(
    frames: Iterator[av.AudioFrame], clock: _Clock, stream: av.AudioStream, rate: int
) -> Iterator[tuple[int, np.ndarray]]:
    """(position of the first sample in the span, `channels samples`): the frames without gaps, in mono or stereo."""
    graph, shape, end = None, None, None
    for frame in frames:
        if frame.pts is None or not frame.time_base:  # The last frame of WMA has neither.
            if end is None:
                continue
            frame.time_base, frame.pts = stream.time_base, round(end / stream.time_base)
        end = frame.pts * frame.time_base + Fraction(frame.samples, frame.sample_rate)
        own = (frame.sample_rate, frame.format.name, frame.layout.name)
        if graph is None or own != shape:
            if graph is not None:
                graph.push(None)
                yield from _blocks(graph, rate)
            graph, shape = _graph(frame, rate), own
        graph.push(frame)
        yield from _blocks(graph, rate)
    if graph is not None:
        graph.push(None)
        yield from _blocks(graph, rate)


def _blocks(graph: av.filter.Graph, rate: int) -> Iterator[tuple[int, np.ndarray]]:
    while True:
        try:
            block = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        yield round(float(block.pts * block.time_base) * rate), block.to_ndarray()


def _graph(frame: av.AudioFrame, rate: int) -> av.filter.Graph:
    graph = av.filter.Graph()
    last = graph.add_abuffer(
        sample_rate=frame.sample_rate, format=frame.format.name, layout=frame.layout.name, time_base=frame.time_base
    )
    layout = "mono" if frame.layout.nb_channels == 1 else "stereo"
    for name, options in (
        ("aresample", f"{rate}:async=1:min_hard_comp={GAP}:out_sample_fmt=fltp"),
        ("aformat", f"sample_fmts=fltp:channel_layouts={layout}"),
        ("abuffersink", None),
    ):
        one = graph.add(name, options)
        last.link_to(one)
        last = one
    graph.configure()
    return graph
