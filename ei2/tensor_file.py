"""Safetensors files: written atomically, and read without running code."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from . import VERSION
from .checked import Damaged, value
from .exhausted import ran_out
from .temporary import writing_folder
from .user_text import printable_name

FORMAT = 1  # version of the records; newer ones may hold what this version cannot read
NUMBERS = re.compile(r"\d{1,6}(\.\d{1,6}){1,3}", re.ASCII)  # a version
MOST_TENSORS = 50_000  # SDXL has about two thousand trained tensors
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}

# system error numbers for a full disk, including the process's own limit, and for a folder without write permission
FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)} | ({39, 112} if os.name == "nt" else set())
LOCKED = {errno.EACCES, errno.EPERM, errno.EROFS}
NO_LINKS = {errno.EPERM, errno.EMLINK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EXDEV}


class BadFile(ValueError):
    """The file is damaged or of another kind."""


class NotWritten(OSError):
    """The file could not be written; no part of it remains."""


def write(path: Path, kind: str, tensors: dict[str, torch.Tensor], record: dict, extra: dict | None = None) -> None:
    """Writes tensors, a JSON-serialisable `record` of this `kind`, and `extra` texts for other readers of
    the metadata. Creates missing folders. The file appears, or replaces an older one, only when it is
    completely on disk. Raises `NotWritten`."""
    with _written(path, kind, tensors, record, extra) as file:
        os.replace(file, path)


def write_new(
    paths: Iterable[Path], kind: str, tensors: dict[str, torch.Tensor], record: dict, extra: dict | None = None
) -> Path:
    """The same, to the first of `paths` (all in one folder) that is still free when
    the file is complete. Returns that path."""
    paths = iter(paths)
    path = next(paths)
    with _written(path, kind, tensors, record, extra) as file:
        while True:
            try:
                _move_to_new(file, path)
                return path
            except FileExistsError:
                path = next(paths)


def read(path: Path, kind: str, look: bool = False) -> tuple[dict[str, torch.Tensor], dict, dict[str, str]]:
    """The tensors on the CPU, the record, and all metadata. `look`: the tensors are on torch's meta device, without
    values, which is fast for files of any size. Raises `BadFile`, also for a file of another kind."""
    with _opened(path, kind) as (file, record, metadata):
        names = list(file.keys())
        if len(names) > MOST_TENSORS:
            raise Damaged(f"it holds {len(names)} tensors")
        # copies, because mapped tensors would prevent replacing the file while they exist
        get = (lambda name: _without_values(file, name)) if look else (lambda name: file.get_tensor(name).clone())
        return {name: get(name) for name in names}, record, metadata


def part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors whose names begin with `prefix`, keyed by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


@contextmanager
def making_sense(path: Path, record: dict | None = None) -> Iterator[None]:
    """Wraps the interpretation of a file's content: every fault of it becomes a `BadFile` with one sentence. `record`:
    the file's, once it is known; what a newer version wrote need not be damaged."""
    name = printable_name(path.name)
    try:
        yield
    except BadFile:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RuntimeError) as error:
        if ran_out(error):  # no fault of the file
            raise
        if _is_newer((record or {}).get("version")):
            raise _newer(name, record, f" ({_reason(error)})") from error
        raise BadFile(
            f"{name} is damaged or was not made by this pack ({_reason(error)}): delete it and make it again."
        ) from error


@contextmanager
def _opened(path: Path, kind: str) -> Iterator[tuple]:
    name = printable_name(path.name)
    try:
        with making_sense(path), safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if kind not in metadata:
                raise BadFile(f"{name} is a file of another kind: it holds no record {kind} of this pack.")
            record = json.loads(metadata[kind])
            if value(record, "format", int) != FORMAT:
                raise _newer(name, record)
            yield file, record, metadata
    except (SafetensorError, OSError) as error:
        if not _is_unicode(path):
            raise BadFile(f"{name} cannot be read, since its name or folder is not in Unicode: rename it.") from error
        if path.is_file() and not os.access(path, os.R_OK):
            raise BadFile(
                f"{name} cannot be read: ComfyUI has no permission. Change the file's permissions."
            ) from error
        raise BadFile(
            f"{name} cannot be read ({_reason(error)}): it is broken, cut off or not a safetensors file."
        ) from error


def _newer(name: str, record: dict, reason: str = "") -> BadFile:
    return BadFile(
        f"{name} was written by version {printable_name(record.get('version'))[:20]} of this pack, which this one "
        f"({VERSION}) cannot read{reason}: update the pack."
    )


def _is_newer(version: object) -> bool:
    """Whether this is the number of a later version than this one."""
    numbers = lambda text: tuple(map(int, text.split(".")))
    return isinstance(version, str) and bool(NUMBERS.fullmatch(version)) and numbers(version) > numbers(VERSION)


def _without_values(file, name: str) -> torch.Tensor:
    header = file.get_slice(name)
    if header.get_dtype() not in DTYPES:
        raise Damaged(f"{name[:80]!r} is of the type {header.get_dtype()}")
    return torch.empty(header.get_shape(), dtype=DTYPES[header.get_dtype()], device="meta")


@contextmanager
def _written(path: Path, kind: str, tensors: dict, record: dict, extra: dict | None) -> Iterator[Path]:
    """The complete file under a unique temporary name, ready to be moved into place."""
    record = {"format": FORMAT, "version": VERSION, **record}
    plain = _apart({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    texts = {kind: json.dumps(record), **(extra or {})}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing_folder(path.parent) as folder:
            file = folder / "file"
            save_file(plain, file, texts)
            (folder / "usual").touch()
            file.chmod((folder / "usual").stat().st_mode)  # safetensors lets nobody else read it
            with open(file, "rb+") as opened:
                os.fsync(opened.fileno())
            yield file
    except (SafetensorError, OSError) as error:
        raise NotWritten(f"{printable_name(path.name)} cannot be written: {why_not_written(error)}") from error


def _apart(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors of which no two share memory, which safetensors refuses."""
    seen: set[int] = set()
    for name, tensor in tensors.items():
        memory = tensor.untyped_storage().data_ptr()
        if memory in seen:
            tensors[name] = tensor.clone()
        seen.add(memory)
    return tensors


def _move_to_new(file: Path, path: Path) -> None:
    """Raises `FileExistsError` if there is a file already, even one made just now by another process."""
    if os.name == "nt":
        os.rename(file, path)  # replaces nothing there
        return
    try:
        os.link(file, path)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))  # now it is ours
        try:
            os.replace(file, path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def why_not_written(error: Exception) -> str:
    """The end of a sentence: the reason, and what to do."""
    number = error.errno if isinstance(error, OSError) else _number(str(error))
    if number in FULL:
        return "the disk is full. Make room on it and run again."
    if number in LOCKED:
        return "ComfyUI has no permission to write to that folder. Change the folder's permissions and run again."
    return f"{_reason(error)}."


def _number(text: str) -> int | None:
    """The system's error number, from safetensors' message."""
    match = re.search(r"os error (\d+)", text)
    return int(match[1]) if match else None


def _reason(error: Exception) -> str:
    """The reason on one line, without Python's type names."""
    if isinstance(error, KeyError):
        return f"it lacks {printable_name(error.args[0])[:80]}" if error.args else "something is missing"
    if isinstance(error, RecursionError):
        return "its record is nested too deep"
    if isinstance(error, json.JSONDecodeError):
        return "its record is not JSON"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if "int_max_str_digits" in str(error):
        return "it holds a number of thousands of digits"
    return printable_name(error)[:300].rstrip(".")


def _is_unicode(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
