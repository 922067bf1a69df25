"""The node search finds the nodes by the words that users have for them.

Older front ends look at names only; with a host that knows `search_aliases` (`host/newer.py`), further words
are found.
"""

from __future__ import annotations

import json
import urllib.request

import pytest

from .hand import PATIENCE, Hand

PLACE = (600, 350)
FIRST = 8  # among so many results, which are seen without scrolling
BY_NAME = {
    "inversion": "EI2 Invert (DDIM Inversion)",
    "ddim": "EI2 Invert (DDIM Inversion)",
    "prompt to prompt": "EI2 Attention Control (Prompt-to-Prompt)",
    "vid2vid": "EI2 Edit Sample (Vid2Vid)",
    "flicker": "EI2 Metrics (Flicker, CLIP)",
    "side by side": "EI2 Compare (Side by Side)",
    "restyle": "EI2 Recipe (Restyle, Swap, Background)",
    "background": "EI2 Recipe (Restyle, Swap, Background)",
}
BY_ALIAS = {
    "null text": "EI2 Invert (DDIM Inversion)",
    "p2p": "EI2 Attention Control (Prompt-to-Prompt)",
    "tune-a-video": "EI2 One-Shot Tune",
    "temporal consistency": "EI2 Metrics (Flicker, CLIP)",
    "style transfer": "EI2 Edit Sample (Vid2Vid)",
    "replace object": "EI2 Recipe (Restyle, Swap, Background)",
    "contact sheet": "EI2 Compare (Side by Side)",
}


@pytest.fixture(scope="module")
def hand(editor):
    hand = Hand(editor)
    hand.new_workflow()
    return hand


@pytest.fixture(scope="module")
def aliases(server) -> bool:
    """Whether this host hands search words to the editor."""
    with urllib.request.urlopen(f"{server.url}/object_info/EI2_Invert") as answer:
        return bool(json.load(answer)["EI2_Invert"].get("search_aliases"))


@pytest.mark.parametrize("words", BY_NAME)
def test_found_by_its_name(hand, picture, words):
    find(hand, picture, words, BY_NAME[words])


@pytest.mark.parametrize("words", BY_ALIAS)
def test_found_by_another_word(hand, aliases, picture, words):
    if not aliases:
        pytest.skip("this ComfyUI knows no search_aliases")
    find(hand, picture, words, BY_ALIAS[words])


def find(hand, picture, words: str, name: str) -> None:
    hand.search(words, *PLACE)
    options = hand.page.get_by_role("option")
    found = options.filter(has=hand.page.get_by_text(name, exact=True)).first
    found.wait_for(timeout=PATIENCE * 1000)
    picture(hand.editor, f"search-{words.replace(' ', '-')}", wait=0)
    first = [option.inner_text() for option in options.all()[:FIRST]]
    hand.leave_search()
    assert any(name in text for text in first), first
