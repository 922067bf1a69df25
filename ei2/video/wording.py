"""Numbers in messages, in correct English."""

from __future__ import annotations


def plural(count: int, noun: str) -> str:
    """`1 frame`, `2 frames`."""
    return f"{count} {noun}{'s' * (count != 1)}"


def was(count: int) -> str:
    """The verb after `plural(count, ...)`."""
    return "was" if count == 1 else "were"
