"""Inversions kept on disk: the same clip, model, prompt and settings are not inverted twice, not even after a restart.

They lie in a folder of ComfyUI's user directory that its web server does not give out. The least recently used ones go
when their size passes the limit.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

import comfy.model_management
import folder_paths
import torch
from safetensors import SafetensorError

from ...ei2 import tensor_file
from ...ei2.digest import Unhashable
from ..inversion import Inversion
from .inversion_key import inversion_key

KIND = "ei2_inversion"
LIMIT_VARIABLE, LIMIT = "EI2_CACHE_MB", 2000  # megabytes


@dataclass(frozen=True)
class Usage:
    """What the cache holds."""

    entries: int
    size: int  # bytes

    def __str__(self) -> str:
        plural = "" if self.entries == 1 else "s"
        return f"{self.entries} inversion{plural}, {self.size / 1e6:.1f} MB of at most {limit() / 1e6:.0f}"


def cached_inversion(model, parts: dict, compute: Callable[[], Inversion]) -> tuple[Inversion, str]:
    """The inversion, from the disk where it is there, and how it came about, for the user. `parts`: what determines it
    beside the model, among it `latent`, the clip `f c h w`."""
    most = limit()
    if not most:
        return compute(), "computed, not kept: the cache is switched off"
    try:
        key = inversion_key(model, parts)
    except Unhashable as reason:
        return compute(), f"computed, not kept: {reason} cannot be told from another"
    found = _load(key, parts["latent"])
    if found is not None:
        return found, f"from the cache ({usage()})"
    inversion = compute()
    try:
        kept = _store(key, inversion, most)
    except (OSError, SafetensorError) as error:
        return inversion, f"computed, not kept: {error}"
    return inversion, f"computed and kept ({usage()})" if kept else "computed, not kept: larger than the cache"


def folder() -> Path:
    """Where they lie; it may not exist yet. The name is that of a system user's folder, which newer hosts do not serve
    to browsers and older ones have no function for."""
    return Path(folder_paths.get_user_directory()) / "__ei2" / "inversions"


def limit() -> float:
    """The largest size in bytes; 0 switches the cache off. Raises `ValueError` where the user gives no number."""
    given = os.environ.get(LIMIT_VARIABLE, LIMIT)
    try:
        return max(0.0, float(given)) * 1e6
    except ValueError:
        raise ValueError(
            f"The environment variable {LIMIT_VARIABLE} is '{given}': set it to megabytes, 2000 for instance."
        ) from None


def usage() -> Usage:
    sizes = [size for _, size, _ in _entries()]
    return Usage(len(sizes), sum(sizes))


def clear() -> Usage:
    """Deletes all; returns what there was."""
    before = usage()
    for _, _, path in _entries():
        path.unlink(missing_ok=True)
    return before


def _load(key: str, source) -> Inversion | None:
    """None for a file that is missing, broken or does not fit: it is then computed and written anew."""
    path = _path(key)
    try:
        tensors, record, _ = tensor_file.read(path, KIND)
        noise = tensors.pop("noise")
        if noise.shape != source.shape:
            return None
        with suppress(OSError):
            os.utime(path)  # used just now
        device = comfy.model_management.intermediate_device()
        return Inversion(noise.to(device), source, **tensors, **record["values"])
    except (tensor_file.BadFile, KeyError, TypeError):
        return None


def _store(key: str, inversion: Inversion, most: float) -> bool:
    """Writes it, then makes room for it. Returns whether there was any."""
    tensors, values = {}, {}
    for field in fields(inversion):
        value = getattr(inversion, field.name)
        if field.name != "source" and value is not None:  # the source is the input
            (tensors if isinstance(value, torch.Tensor) else values)[field.name] = value
    tensor_file.write(_path(key), KIND, tensors, {"values": values})
    size = usage().size
    for _, one, path in sorted(_entries()):
        if size <= most:
            break
        path.unlink(missing_ok=True)
        size -= one
    return _path(key).exists()


def _path(key: str) -> Path:
    return folder() / f"{key}.safetensors"


def _entries() -> list[tuple[int, int, Path]]:
    """Time of last use (ns), size (bytes) and file of each."""
    found = []
    for path in folder().glob("*.safetensors"):
        try:
            status = path.stat()
        except FileNotFoundError:  # another server deleted it just now
            continue
        found.append((status.st_mtime_ns, status.st_size, path))
    return found
