"""Opens a video file, chooses its tracks, and explains errors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av


@contextmanager
def opened(path: str | Path) -> Iterator[av.container.InputContainer]:
    """The open file. Raises ValueError if it is missing, empty or not a video."""
    path = Path(path)
    check_file(path)
    try:
        # metadata_errors: a badly encoded title must not stop the reading.
        container = av.open(str(path), metadata_errors="replace")
    except MemoryError:  # PyAV's own is one too
        raise
    except (av.FFmpegError, ValueError) as error:
        raise unreadable(path) from error
    with container:
        yield container


def check_file(path: Path) -> None:
    """Raises ValueError for a file that is missing, locked or empty."""
    if not os.path.isfile(path):
        raise ValueError(f"There is no video file '{path.name}': choose an existing file or upload it again.")
    if not os.access(path, os.R_OK):
        raise ValueError(f"'{path.name}' cannot be read: ComfyUI has no permission. Change the file's permissions.")
    if path.stat().st_size == 0:
        raise ValueError(f"'{path.name}' is empty (0 bytes): upload it again.")


def unreadable(path: Path) -> ValueError:
    return ValueError(
        f"'{path.name}' cannot be read as a video: it is incomplete, damaged or of another type; "
        "upload it again or export it as MP4 (H.264)."
    )


@contextmanager
def memory_explained(path: str | Path) -> Iterator[None]:
    """Turns every out-of-memory error into a ValueError that says so."""
    try:
        yield
    except MemoryError as error:
        raise ValueError(
            f"Memory ran out while '{Path(path).name}' was being read: lower max_frames, width or height, "
            "or raise frame_stride."
        ) from error


def video_stream(container: av.container.InputContainer, path: str | Path) -> av.VideoStream:
    """The default picture track, otherwise the first one. Raises ValueError if there is none."""
    # the cover picture of a music file is a track too
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        raise ValueError(f"'{Path(path).name}' has no picture track (only sound or data): choose a video file.")
    stream = _default(streams)
    if stream.codec_context is None:
        raise undecodable(path)
    return stream


def undecodable(path: str | Path) -> ValueError:
    return ValueError(
        f"The video of '{Path(path).name}' cannot be decoded: it is incomplete, damaged or of an "
        "unknown kind; upload it again or export it as MP4 (H.264)."
    )


def audio_stream(container: av.container.InputContainer) -> av.AudioStream | None:
    """The default sound track, otherwise the first one with channels, otherwise None."""
    known = [s for s in container.streams.audio if s.codec_context is not None]
    streams = [s for s in known if s.codec_context.sample_rate and s.codec_context.layout.nb_channels]
    return _default(streams) if streams else None


def _default(streams: list) -> av.stream.Stream:
    return next((s for s in streams if s.disposition & av.stream.Disposition.default), streams[0])
