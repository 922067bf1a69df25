"""The messages that help pages quote are messages of the pack, word for word."""

from __future__ import annotations

import ast
import re

import pytest

from devtools.environment import ROOT

QUOTED = re.compile(r'"([^"]+)"')
MOST_COLUMNS = 5
GAP = "…"  # stands for what a message fills in


def quotations() -> list[tuple[str, str]]:
    """(page, message) for what stands in quotes on the left of "If it goes wrong"."""
    found = []
    for page in sorted((ROOT / "web" / "docs").glob("*.md")):
        table = page.read_text(encoding="utf-8").split("## If it goes wrong")[1]
        rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
        found += [(page.stem, message) for row in rows for message in QUOTED.findall(row)]
    return found


@pytest.fixture(scope="module")
def messages() -> list[str]:
    """All texts in the pack's code, with `GAP` for what is filled in."""
    found = []
    for file in [file for folder in ("nodes", "host", "ei2") for file in (ROOT / folder).rglob("*.py")]:
        for one in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(one, ast.JoinedStr):
                found.append("".join(p.value if isinstance(p, ast.Constant) else GAP for p in one.values))
            elif isinstance(one, ast.Constant) and isinstance(one.value, str):
                found.append(one.value)
    return found


@pytest.mark.parametrize("page, message", quotations())
def test_message_exists(messages, page, message):
    pattern = ".*".join(re.escape(part.strip()) for part in message.split(GAP))
    assert any(re.search(pattern, one, re.DOTALL) for one in messages)


def test_pages_fit_the_sidebar():
    """It is about 285 pixels wide: lines of code and tables of many columns would stick out of it."""
    for page in sorted((ROOT / "web" / "docs").rglob("*.md")):
        for line in page.read_text(encoding="utf-8").splitlines():
            assert not (line.startswith("    ") and len(line) > 44), (page.name, line)
            assert line.count("|") <= MOST_COLUMNS + 1 or not line.startswith("|"), (page.name, line)
