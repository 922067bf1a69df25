"""The files that a table names: on this machine, or at any URL that fsspec reads."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from .errors import BatchError

URL = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)
ENDING = re.compile(r"\.\w{1,8}$", re.ASCII)
BLOCK = 1 << 20
# What file systems call the mark of a file's version, the best first.
VERSIONS = (
    "ETag",
    "etag",
    "Content-MD5",
    "Digest",
    "Last-Modified",
    "LastModified",
    "last_modified",
    "mtime",
    "updated",
)


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
        return PurePosixPath(_path(self.address)).stem

    @property
    def name(self) -> str:
        """The name in a server's input folder: the same for the same content."""
        ending = ENDING.search(_path(self.address))
        return self.digest[:20] + (ending.group().lower() if ending else "")

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
            mark = _version(address, about) or f"{system.ukey(path)} {about.get('size')}"
        except Exception as error:  # each file system has its own kinds
            raise BatchError(f"{address} cannot be read: {_said(error)}") from error
        return Source(address, hashlib.sha256(mark.encode()).hexdigest(), int(about.get("size") or 0))
    path = folder / os.path.expanduser(address)
    if not os.path.isfile(path):  # unlike Path's, never raises
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
        try:
            return system.cat_file(path)
        except Exception as error:  # as above; and a timeout here is not the server's, as `TimeoutError` would say
            raise OSError(f"{address} cannot be read: {_said(error)}") from error
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


def _said(error: Exception) -> str:
    """What an error says, which for a timeout is nothing."""
    return str(error) or type(error).__name__


def _version(address: str, about: dict) -> str | None:
    """A mark of a remote file's version: where it is, and what its system says about the content. None if that says
    nothing. fsspec's own `ukey` covers too much (the time of the last access) or too little (HTTP: only the URL)."""
    version = next((about[key] for key in VERSIONS if about.get(key)), None)
    if version is None:
        return None
    parts = urlsplit(address)
    if parts.scheme.lower() in ("http", "https"):  # a query is often a signature, new every time
        address = parts._replace(query="", fragment="").geturl()
    return f"{address} {version} {about.get('size')}"


def _path(address: str) -> str:
    """The path in an address, with slashes."""
    if not is_url(address):
        return address.replace("\\", "/")
    parts = urlsplit(address)
    return unquote(parts.netloc + parts.path)


def _filesystem(address: str):
    """fsspec's file system and the path in it. Raises `BatchError` if a package
    for this kind of URL is not installed."""
    try:
        import fsspec

        return fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise BatchError(f"{address} cannot be reached: {error}") from error
