"""Numbers in messages, in correct English."""

from __future__ import annotations


def plural(count: int, noun: str) -> str:
    """`1 frame`, `2 frames`."""
    return f"{count} {noun}{'s' * (count != 1)}"


def was(count: int) -> str:
    """The verb after `plural(count, ...)`."""
    return "was" if count == 1 else "were"


def file_size(count: int) -> str:
    """A number of bytes for a reader: never "0.0 MB"."""
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{-(-count // 1000)} kB"
