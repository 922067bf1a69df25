"""Cached inversions on disk: the same clip, model, prompt and settings are not
inverted twice, not even after a restart.

They are in a folder of ComfyUI's user directory that its web server does not serve. When their size exceeds the limit,
the least recently used ones are deleted.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

import comfy.model_management
import torch

from ..ei2 import tensor_file
from ..ei2.checked import Damaged, finite, tensor, value
from ..ei2.digest import Unhashable
from ..ei2.inverted_clip import Inversion
from ..ei2.wording import file_size, plural
from .folders import inversions_folder
from .identity import inversion_key
from .ui import warn

KIND = "ei2_inversion"
LIMIT_VARIABLE, LIMIT = "EI2_CACHE_MB", 2000  # megabytes


@dataclass(frozen=True)
class Usage:
    """The cache's content."""

    entries: int
    size: int  # bytes

    def __str__(self) -> str:
        if not self.entries:
            return "no inversions"
        return f"{plural(self.entries, 'inversion')}, {file_size(self.size)}"


def cached_inversion(model, parts: dict, compute: Callable[[], Inversion]) -> tuple[Inversion, str]:
    """The inversion, from the disk if it is there, and a note for the user on where it came from. `parts`: what
    determines it apart from the model, including `latent`, the clip `f c h w`."""
    most = limit()
    if not most:
        return compute(), "computed, not kept: the cache is switched off"
    try:
        key = inversion_key(model, parts)
    except Unhashable as reason:
        return compute(), f"computed, not kept: {reason} cannot be identified"
    inversion = _load(key, parts["latent"], parts["steps"])
    if inversion is not None:
        return inversion, f"from the cache ({usage()})"
    inversion = compute()
    try:
        kept = _store(key, inversion, most)
    except OSError as error:
        return inversion, f"computed, not kept: {error}"
    return inversion, f"computed and kept ({usage()})" if kept else "computed, not kept: larger than the cache"


def limit() -> float:
    """The largest size in bytes; 0 switches the cache off. Raises `ValueError` if the user's value is not a number."""
    megabytes = os.environ.get(LIMIT_VARIABLE, LIMIT)
    try:
        return max(0.0, float(megabytes)) * 1e6
    except ValueError:
        raise ValueError(
            f"The environment variable {LIMIT_VARIABLE} is '{megabytes}': set it to a number of megabytes, such as "
            "2000."
        ) from None


def usage() -> Usage:
    sizes = [size for _, size, _ in _entries()]
    return Usage(len(sizes), sum(sizes))


def clear() -> Usage:
    """Deletes everything except files another server is reading; returns what was deleted."""
    sizes = [size for _, size, path in _entries() if _delete(path)]
    return Usage(len(sizes), sum(sizes))


def _load(key: str, source, steps: int) -> Inversion | None:
    """None for a file that is missing, damaged or does not fit: it is then computed and written again."""
    path = _path(key)
    if not os.path.exists(path):  # `Path.exists` raises where the folder may not be entered
        return None
    try:
        tensors, record, _ = tensor_file.read(path, KIND)
        with tensor_file.making_sense(path, record):
            values = value(record, "values", dict)
            _check(tensors, values, source, steps)
            noise = tensors.pop("noise").to(comfy.model_management.intermediate_device())
            inversion = Inversion(noise, source, **tensors, **values)
    except tensor_file.BadFile as error:
        warn(f"{error} It is a cached inversion, which is now computed again.")
        return None
    with suppress(OSError):
        os.utime(path)  # mark as just used
    return inversion


def _check(tensors: dict[str, torch.Tensor], values: dict, source: torch.Tensor, steps: int) -> None:
    """Raises `Damaged` unless this is an inversion of the clip `f c h w` with `steps` steps."""
    shapes = {"noise": source.shape, "sigmas": (steps + 1,)}
    if "trajectory" in tensors:
        shapes["trajectory"] = (steps + 1, *source.shape)
    if "unconditional" in tensors:
        length = tensor(tensors, "unconditional", dims=3).shape[1:]
        shapes |= {"unconditional": (steps, *length), "empty": (1, *length)}
    if tensors.keys() != shapes.keys():
        raise Damaged(f"it holds {', '.join(sorted(tensors))[:200]}")
    for name, shape in shapes.items():
        part = tensor(tensors, name)
        if part.shape != torch.Size(shape):
            raise Damaged(f"{name} has the shape {list(part.shape)[:8]} instead of {list(shape)}")
        finite(name, part)
    if values.keys() - {"null_cfg"}:
        raise Damaged(f"it holds {sorted(values)[0][:40]!r}, which is unknown")
    value(values, "null_cfg", float)


def _store(key: str, inversion: Inversion, most: float) -> bool:
    """Writes it, then makes room for it. Returns whether it is kept: one larger than `most` bytes is not."""
    tensors, values = {}, {}
    for field in fields(inversion):
        value = getattr(inversion, field.name)
        if field.name != "source" and value is not None:  # the source is the input
            (tensors if isinstance(value, torch.Tensor) else values)[field.name] = value
    if sum(tensor.nbytes for tensor in tensors.values()) > most:
        return False
    own = _path(key)
    tensor_file.write(own, KIND, tensors, {"values": values})
    size = usage().size
    for _, length, path in sorted(_entries()):
        if size <= most:
            break
        if path != own and _delete(path):  # others may be dated in the future
            size -= length
    return True


def _delete(path: Path) -> bool:
    """Whether it was deleted. Windows keeps files that are being read."""
    with suppress(OSError):
        path.unlink(missing_ok=True)
        return True
    return False


def _path(key: str) -> Path:
    return inversions_folder() / f"{key}.safetensors"


def _entries() -> list[tuple[int, int, Path]]:
    """The time of last use (ns), size (bytes) and path of each inversion."""
    entries = []
    with suppress(OSError):  # the folder may not be entered
        for path in inversions_folder().glob("*.safetensors"):
            with suppress(OSError):  # another server deleted it just now
                status = path.stat()
                entries.append((status.st_mtime_ns, status.st_size, path))
    return entries
