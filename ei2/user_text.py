"""Makes the user's texts and values safe for messages, logs, terminals, JSON files and browsers."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection

LETTERS = 60  # characters of a value in a message
HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # control and format characters, surrogates, separators of lines
KEPT = "\n\t\u200c\u200d"  # line breaks, tabs, and the joiners of letters and emoji


def short(value, quotes: bool = True) -> str:
    """A value's repr, such as `'red = 3'`, `-1` or `nan`, cut to `LETTERS`. `quotes`: whether texts are quoted."""
    if isinstance(value, (str, bytes)):
        cut = value[:LETTERS]
        text = repr(cut) if quotes or isinstance(value, bytes) else cut
        return text if len(value) <= LETTERS else f"{text[:-1]}…{text[-1]}" if quotes else f"{text}…"
    try:
        text = repr(value)
    except ValueError:  # Python does not convert integers of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= LETTERS else f"{text[:LETTERS]}…"


def printable(text: str) -> str:
    """The text with escapes for characters that cannot be encoded, move the cursor or change the reading direction. A
    byte of a file name that is not UTF-8, which Python keeps as a surrogate, becomes `\\x82`. Line breaks stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(one) if _is_hidden(one) else one for one in text.replace("\r\n", "\n"))


def printable_name(name: object) -> str:
    """The same for a name, on one line."""
    return printable(str(name)).replace("\n", r"\n").replace("\t", r"\t")


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in HIDDEN and character not in KEPT


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # os.fsdecode's surrogate of one byte
        return rf"\x{code - 0xDC00:02x}"
    if code < 0x100:
        return rf"\x{code:02x}"
    return rf"\u{code:04x}" if code < 0x10000 else rf"\U{code:08x}"


def check_choice(name: str, value, choices: Collection) -> None:
    """Raises `ValueError` unless the value of that name is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name} is {short(value)}: choose one of {', '.join(map(str, choices))}.")
