"""With Chinese as the editor's language, help pages and the nodes' names, inputs and tooltips are Chinese.

ComfyUI 0.3.75 brings front end 1.32.9, which has a defect: it hides the translations of all packs, except help pages.
Most tests are for newer ones: `COMFYUI_FRONT_END=newest python3 dev.py test tests/browser`.
"""

from __future__ import annotations

import re

import pytest

from devtools.environment import ROOT
from devtools.locales import read

from .editor import Editor
from .hand import Hand
from .help_pages import DOCS, NODES, open_page

TEXTS = read("zh")
LAST_WITH_DEFECT = (1, 32)


@pytest.fixture(scope="module")
def any_hand(server):
    """On every front end."""
    with Editor(server.url, settings={"Comfy.Locale": "zh"}) as editor:
        editor.load(ROOT / "workflows" / "quickstart_full.json")
        editor.fit()
        yield Hand(editor)


@pytest.fixture
def hand(any_hand):
    """On front ends without the defect."""
    version = any_hand.editor.version()
    if tuple(map(int, version.split(".")[:2])) <= LAST_WITH_DEFECT:
        pytest.skip(f"front end {version} hides the translations of packs")
    return any_hand


@pytest.mark.parametrize("name", NODES)
def test_help_page(any_hand, picture, name):
    file = DOCS / name / "zh.md"
    open_page(any_hand, NODES[name], file)
    picture(any_hand.editor, f"chinese-help-{name}")
    text = re.sub(r"!\[[^]]*\]", "", file.read_text(encoding="utf-8"))  # without the pictures' descriptions
    shown = any_hand.page.locator(".node-help-content").first.inner_text()
    assert [words for words in re.findall(r"[\u4e00-\u9fff，。：；]{6,}", text) if words not in shown] == []
    any_hand.page.keyboard.press("Escape")


def test_names_of_inputs_and_outputs(hand, picture):
    picture(hand.editor, "chinese-graph")
    shown = hand.page.evaluate(
        """() => app.graph.nodes.filter(node => node.type.startsWith('EI2_')).map(node => [
            node.type, node.inputs.map(i => [i.name, i.label ?? i.localized_name]),
            node.outputs.map(o => o.label ?? o.localized_name)])"""
    )
    assert shown
    for name, inputs, outputs in shown:
        texts = TEXTS[name]
        for key, text in inputs:
            if key in texts["inputs"]:
                assert text == texts["inputs"][key]["name"], f"{name}: {key}"
        assert outputs == [texts["outputs"][str(i)]["name"] for i in range(len(outputs))], name


def test_tooltip(hand, picture):
    invert = 9
    x, y = hand.slot(invert, "model", "input")
    hand.page.mouse.move(x - 3, y)
    hand.page.mouse.move(x, y)
    tooltip = hand.page.get_by_text(TEXTS["EI2_Invert"]["inputs"]["model"]["tooltip"])
    tooltip.wait_for(timeout=10_000)
    picture(hand.editor, "chinese-tooltip")


def test_search_finds_the_chinese_name(hand, picture):
    name = TEXTS["EI2_OneShotTune"]["display_name"]
    hand.press("创建空白工作流")
    hand.page.wait_for_function("() => app.graph.nodes.length === 0")
    hand.search(name, 600, 300)
    hand.page.get_by_role("option").filter(has_text=name).first.wait_for()
    picture(hand.editor, "chinese-search")
    hand.leave_search()
    node = hand.add(name, 600, 300)
    picture(hand.editor, "chinese-node")
    assert hand.page.evaluate("id => app.graph.getNodeById(id).title", node) == name
