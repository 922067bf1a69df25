"""Whether a file ends before what its header or its index promises."""

from __future__ import annotations

from pathlib import Path

import av

# The writer fills in the duration of these when it finishes the file. FLV's is often wrong; others have none.
STATING_FORMATS = {"matroska,webm", "asf", "mxf"}
SLACK = 0.3  # seconds: the usual difference between the stated duration and the end of the packets
OGG_HEAD = 27  # bytes of a page's head before its table of segments
OGG_PAGE = OGG_HEAD + 255 + 255 * 255  # bytes: the longest page


def missing_frames(path: str | Path, container: av.container.InputContainer, stream: av.VideoStream, end: int) -> int:
    """How many frames the index of an MP4 or MOV lists beyond the end of the file. end: of the track's packets, in its
    time base."""
    if "mov" not in container.format.name:
        return 0
    entries = getattr(stream, "index_entries", None)
    if entries is None:  # PyAV before 17: about so many
        rest = (stream.start_time or 0) + (stream.duration or 0) - end
        return max(0, int(rest * stream.time_base * (stream.average_rate or 0)))
    size = Path(path).stat().st_size
    return sum(entry.pos + entry.size > size for entry in entries)


def stated_duration(container: av.container.InputContainer, stream: av.VideoStream) -> float | None:
    """The duration in the header of a finished file, in seconds, or None."""
    name = container.format.name
    if name not in STATING_FORMATS or not container.duration:
        return None
    if name == "matroska,webm" and stream.duration is not None:
        return None  # Only if FFmpeg has estimated the duration, from the bit rate, it sets that of the tracks, too.
    return container.duration / av.time_base


def ends_in_a_page(path: str | Path, container: av.container.InputContainer) -> bool:
    """Whether an Ogg file ends within a page (RFC 3533, section 6)."""
    if container.format.name != "ogg":
        return False
    with Path(path).open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - OGG_PAGE))
        tail = file.read()
    at = tail.rfind(b"OggS")
    table = tail[at + OGG_HEAD :][: tail[at + OGG_HEAD - 1]] if 0 <= at <= len(tail) - OGG_HEAD else None
    return table is not None and at + OGG_HEAD + tail[at + OGG_HEAD - 1] + sum(table) > len(tail)
