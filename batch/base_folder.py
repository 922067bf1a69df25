"""The private base folder of a worker's server: its input, output and tunes, and links to packs."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import urllib.parse
from collections.abc import Callable
from pathlib import Path

from . import host
from .errors import BatchError
from .server import link_pack
from .sources import read

PREFIX = "ei2-batch-"  # of base folders
TUNES = f"models/{host.TUNES}"
SNAPSHOTS = f"{TUNES}/snapshots"


class BaseFolder:
    """Makes the folder. `comfyui`: whose custom_nodes holds the `packs` to link. Attribute: `path`. Raises `BatchError`
    if a pack is missing, and `OSError`."""

    def __init__(self, comfyui: Path, packs: tuple[str, ...]):
        found = [(name, _pack(comfyui, name)) for name in packs]
        self.path = folder_of_process(PREFIX, Path(tempfile.gettempdir()))
        self._placed: set[str] = set()
        for name in ("input", "output", "temp", SNAPSHOTS):
            (self.path / name).mkdir(parents=True, exist_ok=True)
        link_pack(self.path, host.PACK_ROOT)
        for name, pack in found:
            link_pack(self.path, pack, name)

    def place(self, files: dict[str, object], fetch: Callable[[object], bytes]) -> None:
        """Puts a task's files here and removes those of earlier tasks. `files`: as in `Task`; `fetch`: resolves a
        reference. Raises `OSError`."""
        for name in self._placed - set(files):
            (self.path / name).unlink(missing_ok=True)
        self._placed &= set(files)
        for path in (self.path / SNAPSHOTS).glob("*"):
            if f"{SNAPSHOTS}/{path.name}" not in files:
                path.unlink(missing_ok=True)  # of another clip
        for name, where in files.items():
            path = self.path / name
            if where is None and not path.exists():
                raise FileNotFoundError(f"{name} was sent to this worker before, but it is not there: it is sent again")
            if where is None or name in self._placed and path.exists():
                self._placed.add(name)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}.part")
            part.write_bytes(read(where) if isinstance(where, str) else fetch(where[0]))
            os.replace(part, path)
            self._placed.add(name)

    def keep_tune(self, file: str) -> bytes:
        """Gives the tune that a run has just saved its final name and returns its content; removes the snapshots.
        Raises `BatchError` if there is none, and `OSError`."""
        tunes = self.path / TUNES
        written = max(tunes.glob(f"{Path(file).stem}_*.safetensors"), default=None)
        if written is None:
            raise BatchError("the tuning left no file")
        os.replace(written, tunes / file)
        self._placed.add(f"{TUNES}/{file}")
        for path in (self.path / SNAPSHOTS).glob("*.safetensors"):
            path.unlink(missing_ok=True)  # no longer needed
        return (tunes / file).read_bytes()

    def snapshot(self) -> Path | None:
        """The latest tuning snapshot."""
        files = list((self.path / SNAPSHOTS).glob("[!.]*.safetensors"))
        return max(files, key=lambda path: path.stat().st_mtime_ns, default=None)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def _pack(folder: Path, name: str) -> Path:
    """A pack in ComfyUI's custom_nodes. Raises `BatchError`."""
    path = folder / "custom_nodes" / urllib.parse.unquote(name)
    if not path.exists():
        raise BatchError(f"There is no pack {name} in {folder / 'custom_nodes'} on {socket.gethostname()}.")
    return path


def folder_of_process(prefix: str, within: Path) -> Path:
    """A new folder below `within`, named after this machine and process. Deletes those that killed processes of this
    machine left; others may share `within`, but not its process ids."""
    import psutil

    start = f"{prefix}{socket.gethostname()}-"
    for path in within.glob(f"{start}*"):
        number = path.name.removeprefix(start).partition("-")[0]
        if number.isdigit() and not psutil.pid_exists(int(number)):
            shutil.rmtree(path, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{start}{os.getpid()}-", dir=within))
