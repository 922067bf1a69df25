"""EditBench's rows: what a results file holds, the order of methods and budgets, and which rows are compared.

A results file is a JSON list with one object per method, budget, clip, edit and seed. Tables, plots and contact sheets
are made from rows alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path

from ei2.wording import plural

from .methods import METHODS

BUDGETS = ("equal", "best")
IDENTITY = ("method", "budget", "clip", "edit", "seed")
IN_THE_NAME = (
    "inflation",
    "inverted_with",
    "null_text",
    "control",
    "key_frame",
    "denoise",
)  # settings that the method's name implies


def identity(row: dict) -> tuple:
    """What distinguishes a row from all others in its file."""
    return tuple(row[name] for name in IDENTITY)


def load(path: Path) -> list[dict]:
    """The rows of a results file. Raises ValueError for a file without rows, and for a row that occurs twice."""
    rows = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path} does not hold EditBench rows: a list with one object per edited clip is expected.")
    seen = set()
    for i, row in enumerate(rows):
        missing = [name for name in IDENTITY if name not in row]
        if missing:
            raise ValueError(f"Row {i} of {path} has no {', '.join(missing)}: write it again with the benchmark.")
        key = identity(row)
        if key in seen:
            raise ValueError(f"{path} holds {' / '.join(map(str, key))} twice: keep one of the two rows.")
        seen.add(key)
    return rows


def select(rows: list[dict], **fields) -> list[dict]:
    """The rows with these values, e.g. `select(rows, budget="equal", method="EI2")`."""
    return [row for row in rows if all(row.get(name) == value for name, value in fields.items())]


def methods_of(rows: list[dict]) -> list[str]:
    """The methods that occur: in the order of `methods.METHODS`, then others in order of occurrence."""
    return _ordered([row["method"] for row in rows], METHODS)


def budgets_of(rows: list[dict]) -> list[str]:
    """The budgets that occur: equal, best, then others in order of occurrence."""
    return _ordered([row["budget"] for row in rows], BUDGETS)


def _ordered(names: list[str], first) -> list[str]:
    return [name for name in first if name in names] + [name for name in dict.fromkeys(names) if name not in first]


def case(row: dict) -> tuple[str, str, int]:
    """What two methods are compared on: the same clip, edit and seed."""
    return row["clip"], row["edit"], row["seed"]


def known(row: dict, field: str) -> bool:
    """Whether the row holds a number: a field may be absent, null or NaN if a measure does not apply."""
    value = row.get(field)
    return value is not None and not math.isnan(value)


def values_of(rows: list[dict], field: str) -> tuple[list[float], list[str]]:
    """The numbers of a field, and the clip of each."""
    rows = [row for row in rows if known(row, field)]
    return [float(row[field]) for row in rows], [row["clip"] for row in rows]


def pairs_of(rows: list[dict], reference: list[dict], field: str) -> tuple[list[float], list[float], list[str]]:
    """A field's numbers, the reference's numbers for the same cases, and each case's clip. Cases without both numbers
    are left out. Both lists of rows hold one method at one budget."""
    others = {case(row): float(row[field]) for row in reference if known(row, field)}
    rows = [row for row in rows if known(row, field) and case(row) in others]
    values, clips = values_of(rows, field)
    return values, [others[case(row)] for row in rows], clips


def edits_of(rows: list[dict]) -> set[tuple[str, str]]:
    """The edits that occur, each as its clip and kind, whatever the seed."""
    return {(row["clip"], row["edit"]) for row in rows}


def with_all_methods(rows: list[dict]) -> list[dict]:
    """The rows of those edits that all methods were measured on: only means over the same edits can be compared."""
    by_method = [edits_of(select(rows, method=method)) for method in methods_of(rows)]
    shared = set.intersection(*by_method) if by_method else set()
    return [row for row in rows if (row["clip"], row["edit"]) in shared]


def count_text(cases: Iterable[tuple[str, str, int]]) -> str:
    """E.g. "66 edits of 33 clips, 2 seeds", from what `case` gives."""
    cases = set(cases)
    clips, seeds = {clip for clip, *_ in cases}, {seed for *_, seed in cases}
    text = f"{plural(len({(clip, edit) for clip, edit, _ in cases}), 'edit')} of {plural(len(clips), 'clip')}"
    return text + (f", {len(seeds)} seeds" if len(seeds) > 1 else "")


def shared_settings(row: dict) -> dict:
    """The settings of a row that its method's name does not imply."""
    return {key: value for key, value in (row.get("settings") or {}).items() if key not in IN_THE_NAME}


def settings_text(settings: dict) -> str:
    """E.g. `steps 100, learning rate 0.001, cfg 2`."""
    number = lambda value: f"{value:g}" if isinstance(value, float) else str(value)
    return ", ".join(f"{key.replace('_', ' ')} {number(value)}" for key, value in settings.items())
