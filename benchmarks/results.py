"""What benchmarks write: JSON with one row per line, and Markdown tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from devtools.environment import ROOT

RESULTS = ROOT / "benchmarks" / "results"


def write_rows(file: Path, rows: list[dict], about: dict | None = None) -> None:
    """Writes the rows as a list or, with `about`, as the member "rows" of that object. Makes the folder; never leaves a
    half-written file."""
    text = "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]"
    if about is not None:
        text = json.dumps(about, ensure_ascii=False)[:-1] + f', "rows": {text}}}'
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(file)


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """A Markdown table. The first `texts` columns are text; the others are numbers, aligned right."""
    rule = "|---" * texts + "|---:" * (len(heads) - texts) + "|"
    head, *lines = (f"| {' | '.join(cells)} |" for cells in (heads, *rows))
    return "\n".join([head, rule, *lines])


def memory_text(size: float) -> str:
    """Bytes as `1.25 GiB` or `320 MiB`."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
