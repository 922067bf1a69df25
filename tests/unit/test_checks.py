"""The checkers' findings against the page that explains them, and the choice of a front end."""

from __future__ import annotations

import os

import pytest

from devtools import front_end
from devtools.checks.checkers import odd_characters
from devtools.checks.findings import Finding, explanations, judge
from devtools.environment import SetupError

PAGE = """
| checker | where | finding | explanation |
|---|---|---|---|
| `lint` | `tests/*` | `nn.*` | References. |
| `lint` | `ei2/a.py` | `torch.load*` | Its own files. |
| `guard` | `*` | `*` | Anything. |
"""


@pytest.fixture
def rows(tmp_path):
    (tmp_path / "page.md").write_text(PAGE, encoding="utf-8")
    return explanations(tmp_path / "page.md")


def test_what_no_row_fits_is_unexplained(rows):
    explained = Finding("lint", "tests/unit/test_a.py", "nn.Linear() -- use operations.Linear()", 3)
    others = [
        Finding("lint", "ei2/a.py", "nn.Linear()"),
        Finding("lint", "tests/a.py", "torch.nn"),
        Finding("ruff", "tests/a.py", "nn.Linear()"),
    ]
    found = {"lint": [explained, *others[:2]], "ruff": others[2:]}
    unexplained, _, table = judge(found, rows)
    assert unexplained == others
    assert [line.split()[1:] for line in table.splitlines()[1:]] == [["3", "1", "2"], ["1", "0", "1"]]


def test_rows_that_fit_nothing_are_out_of_date_unless_their_checker_did_not_run(rows):
    _, stale, _ = judge({"lint": [Finding("lint", "ei2/a.py", "torch.load")]}, rows)
    assert [row.why for row in stale] == ["References."]


def test_the_page_is_read():
    checkers = {row.checker for row in explanations()}
    assert checkers == {"comfy-test lint", "comfy-import-guard", "comfy-cli workflow validate"}


def test_odd_characters_in_remarks_and_in_text():
    source = '"""Doc σ²."""\nx = "é" + "a→b"  # √ü\n\n\ndef f():\n    """ε"""\n    return "ε"\n'
    assert odd_characters(source) == [("in comments and docstrings", 1), ("in text: →", 2), ("in text: ε", 7)]
    assert odd_characters('x = "é²"\n') == []


@pytest.fixture
def choose():
    before = os.environ.get(front_end.VARIABLE)

    def choose(value: str) -> None:
        os.environ[front_end.VARIABLE] = value

    yield choose
    os.environ.pop(front_end.VARIABLE, None)
    if before is not None:
        os.environ[front_end.VARIABLE] = before


def test_a_folder_as_front_end(choose, tmp_path):
    choose(" ")
    assert front_end.folder() is None
    (tmp_path / "index.html").touch()
    choose(str(tmp_path))
    assert front_end.folder() == tmp_path.resolve()


@pytest.mark.parametrize("value", ["newer", "1", "/no/such/folder"])
def test_a_wrong_front_end_is_refused(value, choose):
    choose(value)
    with pytest.raises(SetupError, match=f'COMFYUI_FRONT_END is {value}, which is neither "newest" nor a version'):
        front_end.folder()
