"""What the public checkers find, and which of it `docs/checks.md` explains.

The tables in that page are read as they stand: a row with a checker's name, the place and the finding in backquotes
(`*` for any text) explains every finding that fits it. A row that fits none is out of date, and an error.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from .environment import ROOT

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
    """A row of the page. `where` and `what`: patterns as in file names."""

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


def judge(
    found: dict[str, list[Finding]], explained: list[Explanation]
) -> tuple[list[Finding], list[Explanation], str]:
    """`found`: by checker, empty lists for those that found nothing. Returns the findings that nothing explains, the
    explanations of these checkers that fit no finding, and a table of counts."""
    open_ones = [one for ones in found.values() for one in ones if not any(row.fits(one) for row in explained)]
    everything = [one for ones in found.values() for one in ones]
    stale = [row for row in explained if row.checker in found and not any(map(row.fits, everything))]
    unexplained = Counter(one.checker for one in open_ones)
    width = max(map(len, found), default=0)
    lines = [f"{'checker':{width}}  findings  explained  unexplained"]
    for checker, ones in found.items():
        left = unexplained[checker]
        lines.append(f"{checker:{width}}  {len(ones):8}  {len(ones) - left:9}  {left:11}")
    return open_ones, stale, "\n".join(lines)
