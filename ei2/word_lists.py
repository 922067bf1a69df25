"""Words that a user lists in one text: with factors, or alone. Chinese punctuation works too."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from .user_text import short

SEPARATORS, COLONS = re.compile(r"[,;，；、\n]"), re.compile(r"[:：]")
BRACKETS = re.compile(r"^\((.*)\)$")  # as in a prompt's weights
MOST_WORDS = 100  # in one input
LARGEST_FACTOR = 100  # far above what has a use, and safe in half precision


def parse_reweight(text: str) -> list[tuple[str, float]]:
    """Parses entries such as `red: 2` or `(red:2)`, separated by lines or commas, into words and factors. Raises
    `ValueError` with the line that cannot be parsed."""
    pairs = []
    for number, line in enumerate(text.splitlines(), 1):
        word = ""
        for part in SEPARATORS.split(line):
            word = f"{word}, {part.strip()}" if word.strip() else part  # a comma may belong to the words
            *before, factor = COLONS.split(BRACKETS.sub(r"\1", word.strip()))
            value = _number(factor)
            name = ":".join(before).strip()
            if name and LARGEST_FACTOR < abs(value) < math.inf:
                raise ValueError(
                    f"Line {number} of reweight has the factor {factor.strip()}: use one between -{LARGEST_FACTOR} and "
                    f"{LARGEST_FACTOR}."
                )
            if name and math.isfinite(value):
                pairs.append((name, value))
                word = ""
        if word.strip():
            raise ValueError(
                f'Line {number} of reweight is {short(line.strip())}: write a word and a factor, such as "red: 2".'
            )
    check_count([word for word, _ in pairs], "reweight")
    return pairs


def listed_words(text: str) -> list[str]:
    """The words, or groups of words, separated by lines or commas."""
    return [word.strip() for word in SEPARATORS.split(text) if word.strip()]


def check_count(words: Sequence[str], name: str) -> None:
    """Raises `ValueError` for more than `MOST_WORDS` words, because each is searched for in the whole prompt."""
    if len(words) > MOST_WORDS:
        raise ValueError(f"{name} names {len(words)} words: name at most {MOST_WORDS}.")


def _number(text: str) -> float:
    """The number, or NaN if the text is not one."""
    try:
        return float(text)
    except ValueError:
        return math.nan
