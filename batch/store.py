"""The folder of the results: on a disk, or at any URL that fsspec writes to. Files are written atomically."""

from __future__ import annotations

import os
import re
import time
import uuid
from contextlib import suppress

from .errors import BatchError
from .host import user_path
from .sources import is_url

CLIPS, WORK = "clips", "work"  # the folders of the results
PART = re.compile(r"\..+\.[0-9a-f]{8}\.part")
LEFT = 3600.0  # seconds after which a file that is not finished counts as left


class LocalStore:
    """A folder on a disk of this machine."""

    def __init__(self, address: str):
        self.root = user_path(address)
        self.address = str(self.root)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = f"{WORK}/probe"  # what cannot be kept should not be made
            self.write(probe, b"")
            self.delete(probe)
        except OSError as error:
            raise BatchError(f"The folder {self.root} cannot be written to: {error}") from error
        self._clear_left()

    def write(self, name: str, content: bytes) -> None:
        """Writes to a temporary name, syncs it to disk, and renames it. On `OSError` nothing is left."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")  # of its own for each writer
        try:
            with open(part, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        if os.name == "posix":  # Windows cannot sync a folder
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def read(self, name: str) -> bytes | None:
        """The content, or None if there is no such file."""
        path = self.root / name
        return path.read_bytes() if path.is_file() else None

    def exists(self, name: str) -> bool:
        return (self.root / name).is_file()

    def names(self, folder: str, ending: str) -> list[str]:
        """The files below a folder whose names end so, as names for `read`."""
        found = (self.root / folder).rglob(f"*{ending}")
        return sorted(path.relative_to(self.root).as_posix() for path in found if not path.name.startswith("."))

    def delete(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)

    def _clear_left(self) -> None:
        """Deletes what killed runs left half-written. Young files may be those of another run on this folder, and files
        elsewhere may be the user's."""
        below = (file for name in (CLIPS, WORK) for file in (self.root / name).rglob(".*.part"))
        for file in [*self.root.glob(".*.part"), *below]:
            with suppress(OSError):  # another run was faster
                if PART.fullmatch(file.name) and time.time() - file.stat().st_mtime > LEFT:
                    file.unlink()


class UrlStore:
    """A folder at a URL."""

    def __init__(self, address: str):
        try:
            import fsspec

            self.system, self.root = fsspec.core.url_to_fs(address)
            self.system.makedirs(self.root, exist_ok=True)
        except (ImportError, ValueError, OSError) as error:
            raise BatchError(f"{address} cannot be written to: {error}") from error
        self.address = address.rstrip("/")

    def write(self, name: str, content: bytes) -> None:
        """Writes to a temporary name and renames it. Raises `OSError`."""
        path = self._path(name)
        self.system.makedirs(path.rpartition("/")[0], exist_ok=True)
        part = f"{path}.{uuid.uuid4().hex[:8]}.part"
        try:
            self.system.pipe_file(part, content)
            self.system.mv(part, path)
        except BaseException:
            with suppress(Exception):
                self.system.rm_file(part)
            raise

    def read(self, name: str) -> bytes | None:
        """The content, or None if there is no such file."""
        try:
            return self.system.cat_file(self._path(name))
        except FileNotFoundError:
            return None

    def exists(self, name: str) -> bool:
        return self.system.exists(self._path(name))

    def names(self, folder: str, ending: str) -> list[str]:
        """The files below a folder whose names end so, as names for `read`."""
        if not self.system.exists(self._path(folder)):
            return []
        root = self.system._strip_protocol(self.root).rstrip("/") + "/"
        found = [path.removeprefix(root) for path in self.system.find(self._path(folder))]
        return sorted(name for name in found if name.endswith(ending))

    def delete(self, name: str) -> None:
        if self.exists(name):
            self.system.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"


Store = LocalStore | UrlStore


def open_store(address: str) -> Store:
    """The folder of the results; created if missing. Raises `BatchError`."""
    return UrlStore(address) if is_url(address) else LocalStore(address)
