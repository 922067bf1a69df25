"""Folders for files while they are being written. Each has one writer, and can be distinguished from leftovers."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

OURS = re.compile(r"\.ei2-(?P<machine>[0-9a-f]{8})-(?P<process>\d{1,10})-(?P<since>\d{1,12})-[0-9a-f]{8}\.tmp")
EARLIER = re.compile(r"\..+\.safetensors\.tmp|\.tmp[A-Za-z0-9]{6}")  # the first version's, safetensors' own
OLD = 3600  # seconds without a change, after which a folder counts as abandoned

# Whether the process of this machine that wrote at that time (seconds since 1970) is still running.
Runs = Callable[[int, int], bool]


@dataclass(frozen=True)
class Litter:
    """What killed writers left behind."""

    entries: int = 0
    size: int = 0  # bytes

    def __add__(self, other: Litter) -> Litter:
        return Litter(self.entries + other.entries, self.size + other.size)


@contextmanager
def writing_folder(beside: Path) -> Iterator[Path]:
    """A new folder in `beside`, on the same disk as the final file; deleted at the end. Its name identifies the writer,
    because a killed writer leaves the folder behind."""
    for _ in range(100):
        name = f".ei2-{machine()}-{os.getpid()}-{int(time.time())}-{secrets.token_hex(4)}.tmp"
        try:
            (beside / name).mkdir()
        except FileExistsError:
            continue
        break
    try:
        yield beside / name
    finally:
        shutil.rmtree(beside / name, ignore_errors=True)


def find_litter(folder: Path, runs: Runs) -> dict[Path, int]:
    """What killed writers left in a folder and its subfolders, with sizes in bytes. Excludes files that are still being
    written, by this process, another process of this machine (`runs`) or another machine."""
    litter = {}
    for where, folders, files in os.walk(folder):  # links are not followed; unreadable folders are skipped
        for name in [*folders, *files]:
            path = Path(where, name)
            if (OURS.fullmatch(name) or EARLIER.fullmatch(name)) and _is_litter(path, runs):
                litter[path] = _size(path)
        folders[:] = [name for name in folders if not OURS.fullmatch(name)]
    return litter


def sweep(folder: Path, runs: Runs) -> Litter:
    """Deletes the litter of a folder; returns what was deleted."""
    gone = Litter()
    for path, size in find_litter(folder, runs).items():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            try:
                path.unlink()
            except OSError:
                continue
        if not os.path.lexists(path):
            gone += Litter(1, size)
    return gone


@lru_cache
def machine() -> str:
    """Eight characters that identify this machine; in a container, the container, which has its own process ids."""
    try:
        numbers = os.stat("/proc/self/ns/pid").st_ino
    except OSError:  # not Linux
        numbers = 0
    return hashlib.sha256(f"{socket.gethostname()} {uuid.getnode()} {numbers}".encode()).hexdigest()[:8]


def _is_litter(path: Path, runs: Runs) -> bool:
    known = OURS.fullmatch(path.name)
    if known and known["machine"] == machine():
        process = int(known["process"])
        return process != os.getpid() and not runs(process, int(known["since"]))
    return _idle(path) > OLD


def _idle(path: Path) -> float:
    """Seconds since the last change; 0 if the path is gone by now."""
    try:
        newest = max(one.lstat().st_mtime for one in [path, *_inside(path)])
    except OSError:
        return 0.0
    return time.time() - newest


def _size(path: Path) -> int:
    try:
        return sum(one.lstat().st_size for one in (_inside(path) if path.is_dir() else [path]))
    except OSError:  # another server swept it just now
        return 0


def _inside(path: Path) -> list[Path]:
    return list(path.iterdir()) if path.is_dir() and not path.is_symlink() else []
