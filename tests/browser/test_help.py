"""A node's help page is shown where the editor shows help, with its picture."""

from __future__ import annotations

import re

import pytest

from devtools.environment import ROOT

from .hand import Hand

NODES = {"EI2_LoadVideo": 1, "EI2_InflateUNet": 7, "EI2_OneShotTune": 8, "EI2_Invert": 9, "EI2_EditSample": 11}


@pytest.fixture(scope="module")
def hand(editor):
    editor.load(ROOT / "workflows" / "quickstart_full.json")
    editor.fit()
    return Hand(editor)


@pytest.mark.parametrize("name", NODES)
def test_info_button_shows_the_page(hand, picture, name):
    text = (ROOT / "web" / "docs" / f"{name}.md").read_text(encoding="utf-8")
    page = hand.page
    hand.select(NODES[name])
    page.get_by_test_id("info-button").click()
    page.get_by_role("heading", name=text.splitlines()[0].removeprefix("# "), exact=True).first.wait_for()
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    for file in pictures:
        shown = page.locator(f"img[src$='/extensions/EI2/docs/{file}']")
        shown.scroll_into_view_if_needed()
        page.wait_for_function("image => image.complete", arg=shown.element_handle())
        assert shown.evaluate("image => image.naturalWidth") > 100, file
    picture(hand.editor, f"help-{name}")
    words = re.search(r"## Inputs\n.*?`: ([\w ,]+)", text, re.S)[1]  # of the first input's explanation
    assert page.get_by_text(words).count()
    page.keyboard.press("Escape")
