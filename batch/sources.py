"""The files that a table names: on this machine, or at any URL that fsspec reads."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from .errors import BatchError

URL = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)
BLOCK = 1 << 20


@dataclass(frozen=True)
class Source:
    """A file. `address`: a path or URL; `digest`: of its content, or of the remote
    version information; `size` in bytes."""

    address: str
    digest: str
    size: int

    @property
    def remote(self) -> bool:
        return is_url(self.address)

    @property
    def stem(self) -> str:
        return PurePosixPath(self.address.replace("\\", "/")).stem

    @property
    def name(self) -> str:
        """The name in a server's input folder: the same for the same content."""
        return self.digest[:20] + PurePosixPath(self.address.replace("\\", "/")).suffix.lower()

    def read(self) -> bytes:
        """Raises `OSError`."""
        return read(self.address)


def is_url(address: str) -> bool:
    return bool(URL.match(address))


@cache
def find(address: str, folder: Path) -> Source:
    """The file of a table's cell; paths are relative to `folder`. Raises `BatchError` if there is none."""
    if is_url(address):
        system, path = _filesystem(address)
        try:
            about = system.info(path)
            mark = f"{system.ukey(path)}"
        except (OSError, ValueError, ImportError, NotImplementedError) as error:
            raise BatchError(f"{address} cannot be read: {error}") from error
        return Source(address, hashlib.sha256(mark.encode()).hexdigest(), int(about.get("size") or 0))
    path = Path(address).expanduser()
    path = path if path.is_absolute() else folder / path
    if not path.is_file():
        raise BatchError(f"there is no file {path}")
    try:
        with open(path, "rb") as file:
            digest = hashlib.sha256()
            while block := file.read(BLOCK):
                digest.update(block)
    except OSError as error:
        raise BatchError(f"{path} cannot be read: {error}") from error
    return Source(str(path.resolve()), digest.hexdigest(), path.stat().st_size)


def read(address: str) -> bytes:
    """The content of a path or URL. Raises `OSError`."""
    if is_url(address):
        system, path = _filesystem(address)
        return system.cat_file(path)
    return Path(address).read_bytes()


def count_frames(source: Source) -> int | None:
    """The number of frames of a video according to its header; None for a URL.
    Raises `BatchError` if it is not a video."""
    if source.remote:
        return None
    import av  # here, because it is slow

    try:
        with av.open(source.address) as container:
            stream = container.streams.video[0]
            if stream.frames:
                return stream.frames
            seconds = (container.duration or 0) / av.time_base
            return max(1, round(seconds * float(stream.average_rate or 25)))
    except (av.FFmpegError, OSError, IndexError) as error:
        reason = "it has no picture" if isinstance(error, IndexError) else error
        raise BatchError(f"{source.address} cannot be read as a video: {reason}") from error


def _filesystem(address: str):
    """fsspec's file system and the path in it. Raises `BatchError` if a package
    for this kind of URL is not installed."""
    try:
        import fsspec

        return fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise BatchError(f"{address} cannot be reached: {error}") from error
