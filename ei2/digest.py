"""A digest of nested values and tensors: equal content gives equal digests, in every process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import torch

PLAIN = (type(None), bool, int, float, str, bytes, torch.dtype, torch.Size)


class Unhashable(TypeError):
    """A value whose content is not accessible."""


def digest(value, foreign: Callable[[object], object] | None = None) -> str:
    """SHA-256 in hexadecimal of tensors (type, shape, bytes), numbers, strings, None, and
    lists, tuples and dictionaries of these. `foreign` converts any other value to one of these
    types; without it `Unhashable` is raised."""
    hasher = hashlib.sha256()
    _update(hasher, value, foreign)
    return hasher.hexdigest()


def _update(hasher, value, foreign) -> None:
    if isinstance(value, torch.Tensor):
        hasher.update(f"tensor {value.dtype} {tuple(value.shape)};".encode())
        hasher.update(_bytes(value))
    elif isinstance(value, Mapping):
        hasher.update(f"dict {len(value)};".encode())
        for key in sorted(value, key=repr):
            _update(hasher, key, foreign)
            _update(hasher, value[key], foreign)
    elif isinstance(value, (list, tuple)):
        hasher.update(f"list {len(value)};".encode())
        for item in value:
            _update(hasher, item, foreign)
    elif isinstance(value, PLAIN):
        text = repr(value).encode()
        hasher.update(f"{type(value).__name__} {len(text)};".encode() + text)
    elif foreign is None:
        raise Unhashable(type(value).__name__)
    else:
        _update(hasher, foreign(value), None)


def _bytes(tensor: torch.Tensor) -> memoryview:
    # `data`: views of a tensor that was made in inference mode, and moved to another device outside, are refused
    plain = tensor.data.as_subclass(torch.Tensor).cpu().contiguous().reshape(-1)
    return memoryview(plain.view(torch.uint8).numpy())
