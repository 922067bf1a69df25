"""Checks values and tensors read from untrusted files. Raises `Damaged` with the reason when one is not as expected."""

from __future__ import annotations

import math
from dataclasses import MISSING, fields
from typing import TypeVar

import torch

T = TypeVar("T")
KINDS = {"str": str, "int": int, "float": float}  # of a dataclass's fields
WORDS = {
    type(None): "null",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "a record",
}
REAL = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
MOST = 1_000_000  # numbers in a list; no tuning has that many steps
MOST_TEXT = 1000  # characters of a name


class Damaged(ValueError):
    """Part of a file is not as expected. The message is a clause; the caller adds the file's name."""


def value(record: object, key: str, kind: type[T]) -> T:
    """`record[key]`, which must be a `str`, `int`, finite `float` (an int is accepted), `dict` or `list`."""
    if not isinstance(record, dict) or key not in record:
        raise Damaged(f"it lacks {key}")
    return _of_kind(record[key], key, kind)


def numbers(record: object, key: str) -> list[float]:
    """`record[key]`, a list of finite numbers."""
    items = value(record, key, list)
    if len(items) > MOST:
        raise Damaged(f"{key} holds {len(items)} numbers")
    return [_of_kind(item, key, float) for item in items]


def made(kind: type[T], values: dict, **others) -> T:
    """A dataclass from plain `values`. Unknown names are refused, and so are missing ones without a
    default. `others`: fields that do not come from the file. The dataclass may also raise its own
    errors for values outside its choices."""
    known = {field.name: field for field in fields(kind) if field.name not in others}
    for name in values:
        if name not in known:
            raise Damaged(f"it holds {str(name)[:40]!r}, which is unknown")
    plain = {name: value(values, name, KINDS[known[name].type]) for name in values}
    for name, text in plain.items():
        if isinstance(text, str) and len(text) > MOST_TEXT:
            raise Damaged(f"{name} has {len(text)} characters")
    for name, field in known.items():
        if field.default is MISSING and name not in plain:
            raise Damaged(f"it lacks {name}")
    return kind(**plain, **others)


def tensor(tensors: dict[str, torch.Tensor], name: str, dims: int | None = None) -> torch.Tensor:
    """`tensors[name]`, of real numbers. `dims`: the number of dimensions it must have."""
    if name not in tensors:
        raise Damaged(f"it lacks {name[:80]!r}")
    result = tensors[name]
    if result.dtype not in REAL:
        raise Damaged(f"{name[:80]!r} holds {result.dtype} instead of real numbers")
    if dims is not None and result.ndim != dims:
        raise Damaged(f"{name[:80]!r} has the shape {list(result.shape)[:8]}")
    return result


def finite(name: str, values: torch.Tensor) -> None:
    """Raises `Damaged` if any value is NaN or infinite. Tensors on torch's meta device have no values to check."""
    if not values.is_meta and values.is_floating_point() and not torch.isfinite(values).all():
        raise Damaged(f"{name[:80]!r} holds NaN or infinite values")


def same_shapes(tensors: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], what: str) -> None:
    """Raises `Damaged` unless names and shapes match. `what`: what the tensors are, for the message."""
    for name in expected:
        if name not in tensors:
            raise Damaged(f"{what} lack {name!r}")
    for name, tensor in tensors.items():
        if name not in expected:
            raise Damaged(f"{what} hold {name[:80]!r}, which the model does not have")
        if tensor.shape != expected[name].shape:
            raise Damaged(
                f"{what} have {name!r} of the shape {list(tensor.shape)[:8]} instead of {list(expected[name].shape)}"
            )


def _of_kind(item: object, key: str, kind: type[T]) -> T:
    if kind is float and isinstance(item, int) and not isinstance(item, bool) and abs(item) < 2**64:
        item = float(item)
    if not isinstance(item, kind) or isinstance(item, bool):
        raise Damaged(f"{key[:40]} is {WORDS.get(type(item), 'something else')} instead of {WORDS[kind]}")
    if isinstance(item, int) and not -(2**63) <= item < 2**64:
        raise Damaged(f"{key[:40]} is a number of {item.bit_length()} bits")
    if isinstance(item, float) and not math.isfinite(item):
        raise Damaged(f"{key[:40]} is {item}")
    return item
