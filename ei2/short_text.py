"""Values of a user's in messages: as Python writes them, but not endless."""

from __future__ import annotations

from collections.abc import Collection

LETTERS = 60


def short(value, quotes: bool = True) -> str:
    """`'red = 3'`, `-1`, `nan`; of a long text the beginning. Without `quotes` a text as it is."""
    if isinstance(value, (str, bytes)):
        cut = value[:LETTERS]
        text = repr(cut) if quotes or isinstance(value, bytes) else cut
        return text if len(value) <= LETTERS else f"{text[:-1]}…{text[-1]}" if quotes else f"{text}…"
    try:
        text = repr(value)
    except ValueError:  # Python writes no whole numbers of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= LETTERS else f"{text[:LETTERS]}…"


def check_choice(name: str, value, choices: Collection) -> None:
    """Raises `ValueError` unless the value of that name is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name} is {short(value)}: choose one of {', '.join(map(str, choices))}.")
