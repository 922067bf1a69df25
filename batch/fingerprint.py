"""Fingerprints of model files, for the records."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

END = 1 << 20  # bytes at the start and end of a file that its fingerprint covers


def fingerprint(name: str, folders: Iterable[Path]) -> str:
    """The size of a model file and a digest of its start and end. `name`: relative to one of the `folders`. Empty if
    none has it. Raises `OSError`."""
    path = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if path is None:
        return ""
    with open(path, "rb") as file:
        digest, size = hashlib.sha256(file.read(END)), path.stat().st_size
        file.seek(max(0, size - END))
        digest.update(file.read(END))
    return f"{size} bytes, {digest.hexdigest()[:16]}"
