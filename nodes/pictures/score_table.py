"""A table of scores: the edit's, the source's if it has any, and which direction is better."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

HEAD = ("measure", "edit", "source", "better")


@dataclass
class ScoreTable:
    """Rows `(measure, edit, source, better)` of text. Measures that were not computed have no row."""

    rows: list[tuple[str, str, str, str]] = field(default_factory=list)

    def add(self, name: str, edit: torch.Tensor, source: torch.Tensor | None = None, better: str = "") -> None:
        """Adds a measure's mean over its values per frame, `f`."""
        self.rows.append((name, _number(edit), "" if source is None else _number(source), better))

    def markdown(self) -> str:
        """The table in Markdown."""
        return "\n".join("| " + " | ".join(row) + " |" for row in (HEAD, ("---", "---:", "---:", "---"), *self.rows))

    def lines(self) -> str:
        """One line per row, for displays without tables."""
        texts = [f"{name}: {edit}" + (f" (source {source})" if source else "") for name, edit, source, _ in self.rows]
        return "\n".join(texts)


def _number(values: torch.Tensor) -> str:
    return f"{values.double().mean():.4g}"
