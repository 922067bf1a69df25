"""Text on its way out of the pack: to the graph editor, the log, or the host's report of an error.

Part of it comes from files, prompts and names that others made. Older front ends put a node's text into the page as
HTML, newer ones show it letter by letter; so escaping would be right in one and wrong in the other. Look-alikes read
well in both.
"""

from __future__ import annotations

import logging
import re

from ...ei2.user_text import printable

MOST = 8000  # letters; the longest report of ours has half of that

# `[[label|link]]` is what front ends make a link of, by way of `__LNK0__`, without a look at what is in the label.
LINK, PLACE = re.compile(r"\[(?=\[)"), re.compile(r"__(?=LNK\d+__)", re.IGNORECASE)


def plain(text: str) -> str:
    """The text without markup, without what cannot be printed, and not longer than anybody reads."""
    text = str(text)
    if len(text) > MOST:
        text = f"{text[: MOST - 1]}…"
    return PLACE.sub("_ _", LINK.sub("[ ", printable(text).replace("<", "‹")))


def is_markup(name: str) -> bool:
    """Whether a file's name is to be left out of lists of choices, whose entries front ends take for HTML."""
    return "<" in name


def warn(text: str) -> None:
    """A line in the log."""
    logging.warning("EI2: %s", plain(text))
