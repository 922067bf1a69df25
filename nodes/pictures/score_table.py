"""A table of scores: of the edit, of the source where it has them, and which way is better."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

HEAD = ("measure", "edit", "source", "better")


@dataclass
class ScoreTable:
    """Rows `(measure, edit, source, better)` of text; what was not measured has no row."""

    rows: list[tuple[str, str, str, str]] = field(default_factory=list)

    def add(self, name: str, edit: torch.Tensor, source: torch.Tensor | None = None, better: str = "") -> None:
        """A measure's mean over its values per frame, `f`."""
        self.rows.append((name, _number(edit), "" if source is None else _number(source), better))

    def markdown(self) -> str:
        """As a Markdown table."""
        return "\n".join("| " + " | ".join(row) + " |" for row in (HEAD, ("---", "---:", "---:", "---"), *self.rows))

    def lines(self) -> str:
        """A line per row, for where tables are not drawn."""
        texts = [f"{name}: {edit}" + (f" (source {source})" if source else "") for name, edit, source, _ in self.rows]
        return "\n".join(texts)


def _number(values: torch.Tensor) -> str:
    return f"{values.double().mean():.4g}"
