"""Nothing overlaps in the bundled workflows and the blueprint: in the classic renderer and in Nodes 2.0, whose nodes
are higher, before and after a run, which makes nodes grow by texts, pictures and videos.

After a run seven workflows are looked at, which between them have every kind of EI2 node; with EI2_ALL_LAYOUTS=1 all
are whose models can be made here.
"""

from __future__ import annotations

import json
import os

import pytest

from batch.client import Client
from devtools.environment import ROOT
from tests.server.graphs import NEWER, forget_results, skip_if_older

from .boxes import collisions, places
from .editor import NODES_2, Editor
from .hand import Hand
from .short_run import run_short

WORKFLOWS = ROOT / "workflows"
NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
SOME = (
    "compare_tune_a_video",
    "ei2_control_blend",
    "quickstart",
    "quickstart_full",
    "learn_and_keep",
    "load_and_edit",
    "sd15_object_swap",
)
RUN = [name for name in NAMES if name not in NEWER] if os.environ.get("EI2_ALL_LAYOUTS") else SOME
BLUEPRINT = "Edit video (EI2)"
WIDER_THAN_GROUPS = """() => {
    const canvas = document.createElement('canvas').getContext('2d'), size = LiteGraph.GROUP_TEXT_SIZE
    canvas.font = `${size}px ${LiteGraph.GROUP_FONT}`
    return app.graph.groups.filter(g => canvas.measureText(g.title).width + size > g.size[0]).map(g => g.title)
}"""
ADD_OUR_NODES = """() => Object.keys(LiteGraph.registered_node_types).filter(type => type.startsWith('EI2_'))
    .forEach((type, i) => {
        const node = LiteGraph.createNode(type)
        node.pos = [(i % 6) * 420, Math.floor(i / 6) * 620]
        app.graph.add(node)
    })"""
# A title bar has a sign before the title, 30 pixels wide; the page cuts titles by itself.
CUT_TITLES = """() => {
    const canvas = document.createElement('canvas').getContext('2d')
    canvas.font = `${LiteGraph.NODE_TEXT_SIZE}px Inter, Arial`
    const wide = ({ title, size: [width] }) => canvas.measureText(title).width + 35 > width
    const TITLES = '[data-testid="node-title"], [data-testid="node-title"] *, [data-testid^="node-header"] .truncate'
    const cut = bar => bar.scrollWidth > bar.clientWidth + 1
    return LiteGraph.vueNodesMode
        ? [...document.querySelectorAll(TITLES)].filter(cut).map(title => title.textContent.trim())
        : app.graph.nodes.filter(wide).map(node => node.title)
}"""
RENDERERS = {"classic": {}, "nodes-2": NODES_2}


@pytest.fixture(scope="module", params=RENDERERS)
def renderer(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def editor(server, renderer):
    with Editor(server.url, settings=RENDERERS[renderer]) as editor:
        assert editor.nodes_2() == (renderer == "nodes-2")
        yield editor


@pytest.mark.parametrize("name", NAMES)
def test_nothing_overlaps(editor, renderer, picture, name):
    editor.load(WORKFLOWS / f"{name}.json")
    skip_if_older(name, set(editor.missing_nodes()))
    found = collisions(editor)
    picture(editor, f"layout-{renderer}-{name}")
    assert found == []


@pytest.mark.parametrize("name", RUN)
def test_nothing_overlaps_after_a_run(server, editor, renderer, picture, name, tmp_path):
    """Nodes whose results the server remembers would not show their texts."""
    with Client(server.url) as client:
        forget_results(client)
    run_short(editor, WORKFLOWS / f"{name}.json", tmp_path)
    found = collisions(editor)
    picture(editor, f"layout-{renderer}-{name}-run")
    assert found == []


def test_overlap_is_noticed(editor, tmp_path):
    """A node upon another one, and a node half out of its group."""
    content = json.loads((WORKFLOWS / "quickstart_full.json").read_text(encoding="utf-8"))
    nodes = {node["id"]: node for node in content["nodes"]}
    prompt, tune, loss = (nodes[number] for number in (3, 8, 20))
    loss["pos"] = [tune["pos"][0], tune["pos"][1] + tune["size"][1] - 10]
    prompt["pos"][0] -= 40
    file = tmp_path / "copy.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    editor.load(file)
    found = collisions(editor)
    assert (tune["title"], loss["title"]) in found
    assert (prompt["title"], content["groups"][1]["title"]) in found


def test_titles_of_groups_fit(editor):
    for name in NAMES:
        editor.load(WORKFLOWS / f"{name}.json")
        assert editor.page.evaluate(WIDER_THAN_GROUPS) == [], name


def test_titles_of_new_nodes_fit(editor, picture, renderer):
    """At the width that a node has when it is added."""
    Hand(editor).new_workflow()
    editor.page.evaluate(ADD_OUR_NODES)
    places(editor)
    picture(editor, f"titles-{renderer}")
    assert editor.page.evaluate(CUT_TITLES) == []


def test_nothing_overlaps_inside_the_blueprint(editor, renderer, picture):
    hand = Hand(editor)
    hand.new_workflow()
    node = hand.add(BLUEPRINT, 600, 400)
    editor.open_subgraph(node)
    found = collisions(editor)
    picture(editor, f"layout-{renderer}-blueprint")
    assert found == []
