"""Safetensors files that are whole or not there, and never run code when they are read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from . import VERSION

FORMAT = 1  # of the records; a newer one may hold what this version cannot read


class BadFile(ValueError):
    """The file is broken or holds something else."""


def write(path: Path, kind: str, tensors: dict[str, torch.Tensor], record: dict, extra: dict | None = None) -> None:
    """Writes tensors and a JSON-able `record` of this `kind`, and `extra` texts for other readers of the file's
    metadata. Folders are made where they are missing; the file appears when all of it is on the disk."""
    record = {"format": FORMAT, "version": VERSION, **record}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(plain, temporary, {kind: json.dumps(record), **(extra or {})})
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read(path: Path, kind: str) -> tuple[dict[str, torch.Tensor], dict, dict[str, str]]:
    """The tensors, on the CPU, the record, and all metadata. Raises `BadFile`, also for a file of another kind."""
    with _opened(path, kind) as (file, record, metadata):
        # copies: the file's own are mapped into memory, and it could then not be replaced while they live
        return {name: file.get_tensor(name).clone() for name in file.keys()}, record, metadata


def read_record(path: Path, kind: str) -> dict:
    """The record alone, which is quick however large the file is. Raises as `read`."""
    with _opened(path, kind) as (_, record, _):
        return record


def part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Those whose names begin so, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


@contextmanager
def _opened(path: Path, kind: str) -> Iterator[tuple]:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if kind not in metadata:
                raise BadFile(f"{path.name} is a file of another kind: it holds no record {kind} of this pack.")
            record = json.loads(metadata[kind])
            if record["format"] != FORMAT:
                raise BadFile(
                    f"{path.name} was written by version {record['version']} of this pack, which this one ({VERSION}) "
                    "cannot read: update the pack."
                )
            yield file, record, metadata
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise BadFile(f"{path.name} cannot be read ({error}): it is broken, cut off or no safetensors file.") from error
