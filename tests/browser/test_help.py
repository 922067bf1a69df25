"""A node's help page is shown where the editor shows help, with its picture."""

from __future__ import annotations

import re

import pytest

from devtools.environment import ROOT

from .hand import Hand
from .help_pages import DOCS, NODES, open_page


@pytest.fixture(scope="module")
def hand(editor):
    editor.load(ROOT / "workflows" / "quickstart_full.json")
    editor.fit()
    return Hand(editor)


@pytest.mark.parametrize("name", NODES)
def test_info_button_shows_the_page(hand, picture, name):
    file = DOCS / f"{name}.md"
    open_page(hand, NODES[name], file)
    picture(hand.editor, f"help-{name}")
    words = re.search(r"## Inputs\n.*?`: ([\w ,]+)", file.read_text(encoding="utf-8"), re.S)[1]  # of the first input
    assert hand.page.get_by_text(words).count()
    hand.page.keyboard.press("Escape")
