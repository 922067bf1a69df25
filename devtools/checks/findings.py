"""The findings of the public checkers, and which of them `docs/checks.md` explains.

The tables on that page are read as data: a row with a checker's name, and the place and the finding in backquotes (`*`
for any text), explains every finding that matches it. A row without a match is out of date, which is an error.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from ..environment import ROOT

PAGE = ROOT / "docs" / "checks.md"
ROW = re.compile(r"^\| `(?P<checker>[^`]+)` \| `(?P<where>[^`]+)` \| `(?P<what>[^`]+)` \| (?P<why>.+) \|$")


@dataclass(frozen=True)
class Finding:
    """`checker`: its name. `where`: a file of the pack, relative to its root, with `/`. `what`: one line."""

    checker: str
    where: str
    what: str
    line: int | None = None

    def __str__(self) -> str:
        return f"{self.checker}: {self.where}{f':{self.line}' if self.line else ''}: {self.what}"


@dataclass(frozen=True)
class Explanation:
    """A row of the page. `where` and `what`: patterns like those for file names."""

    checker: str
    where: str
    what: str
    why: str

    def fits(self, finding: Finding) -> bool:
        return (
            finding.checker == self.checker
            and fnmatchcase(finding.where, self.where)
            and fnmatchcase(finding.what, self.what)
        )


def explanations(page: Path = PAGE) -> list[Explanation]:
    """The rows of `page`."""
    lines = page.read_text(encoding="utf-8").splitlines()
    return [Explanation(**match.groupdict()) for line in lines if (match := ROW.match(line))]


def judge(findings: dict[str, list[Finding]], rows: list[Explanation]) -> tuple[list[Finding], list[Explanation], str]:
    """`findings`: by checker, empty lists for checkers without findings. `rows`: the explanations. Returns the findings
    that no row explains, the rows of these checkers that match no finding, and a table of counts."""
    everything = [finding for group in findings.values() for finding in group]
    unexplained = [finding for finding in everything if not any(row.fits(finding) for row in rows)]
    stale = [row for row in rows if row.checker in findings and not any(map(row.fits, everything))]
    counts = Counter(finding.checker for finding in unexplained)
    width = max(map(len, findings), default=0)
    lines = [f"{'checker':{width}}  findings  explained  unexplained"]
    for checker, group in findings.items():
        explained = len(group) - counts[checker]
        lines.append(f"{checker:{width}}  {len(group):8}  {explained:9}  {counts[checker]:11}")
    return unexplained, stale, "\n".join(lines)
