"""Help pages as the editor shows them."""

from __future__ import annotations

import re
from pathlib import Path

from devtools.environment import ROOT

from .hand import Hand

DOCS = ROOT / "web" / "docs"
NODES = {  # by their ids in the workflow quickstart_full
    "EI2_LoadVideo": 1,
    "EI2_InflateUNet": 7,
    "EI2_OneShotTune": 8,
    "EI2_Invert": 9,
    "EI2_EditSample": 11,
}


def open_page(hand: Hand, node: object, file: Path) -> None:
    """Presses the info button of a node and waits for the page in `file`: its title, then all its pictures, each of
    which is scrolled into view."""
    text, page = file.read_text(encoding="utf-8"), hand.page
    hand.select(node)
    page.get_by_test_id("info-button").click()
    page.get_by_role("heading", name=text.splitlines()[0].removeprefix("# "), exact=True).first.wait_for()
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text):
        shown = page.locator(f"img[src$='/extensions/EI2/docs/{picture}']")
        shown.scroll_into_view_if_needed()
        page.wait_for_function("image => image.complete", arg=shown.element_handle())
        assert shown.evaluate("image => image.naturalWidth") > 100, picture
