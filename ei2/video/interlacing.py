"""Deinterlaces frames with FFmpeg's filter `bwdif`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import av
import av.filter

OPTIONS = "mode=send_frame:parity=auto:deint=interlaced"  # the same number of frames; progressive ones do not change


def deinterlaced(frames: Iterable[tuple[int, av.VideoFrame]]) -> Iterator[tuple[int, av.VideoFrame]]:
    """Numbered frames, with interlaced ones deinterlaced. The filter needs the next frame;
    without interlaced frames there is no delay."""
    graph, shape, numbers = None, None, deque()
    for number, frame in frames:
        own = (frame.width, frame.height, frame.format.name)
        if graph is not None and own != shape:
            yield from _rest(graph, numbers)
            graph = None
        if graph is None:
            if not frame.interlaced_frame:
                yield number, frame
                continue
            graph, shape = _graph(frame), own
        numbers.append(number)
        graph.push(frame)
        yield from _ready(graph, numbers)
    if graph is not None:
        yield from _rest(graph, numbers)


def _graph(frame: av.VideoFrame) -> av.filter.Graph:
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format.name, time_base=frame.time_base
    )
    bwdif, sink = graph.add("bwdif", OPTIONS), graph.add("buffersink")
    source.link_to(bwdif)
    bwdif.link_to(sink)
    graph.configure()
    return graph


def _ready(graph: av.filter.Graph, numbers: deque) -> Iterator[tuple[int, av.VideoFrame]]:
    while numbers:
        try:
            frame = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        yield numbers.popleft(), frame


def _rest(graph: av.filter.Graph, numbers: deque) -> Iterator[tuple[int, av.VideoFrame]]:
    graph.push(None)
    yield from _ready(graph, numbers)
    numbers.clear()
