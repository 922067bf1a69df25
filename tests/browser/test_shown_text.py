"""What a node says of its run stays on it until its next run, without a name to it: in both renderers, and in nodes
inside a subgraph, whether that is open during the run or not."""

from __future__ import annotations

import pytest

from devtools.environment import ROOT

from .editor import NODES_2, Editor
from .short_run import run_short

WORKFLOWS = ROOT / "workflows"
INVERTED = ("computed", "from the cache")  # what EI2 Invert says
BOX = "[data-ei2-text]"
BLUEPRINT = WORKFLOWS.parent / "subgraphs" / "Edit video (EI2).json"
LOADERS = (
    ("EI2_LoadVideo", {"width": 128, "height": 128, "max_frames": 4}, {"images": "images"}),
    ("EI2_LoadMini", {}, {"model": "model", "clip": "clip", "vae": "vae"}),
)
SHORT = {"source_prompt": "a blue square", "edit_prompt": "a red circle", "tune_steps": 2, "invert_steps": 2}


@pytest.fixture(scope="module", params=({}, NODES_2), ids=("classic", "nodes-2"))
def editor(server, request):
    with Editor(server.url, settings=request.param) as editor:
        yield editor


def shown(editor) -> list[str]:
    """The texts that can be read in the open graph."""
    editor.fit()
    editor.page.wait_for_timeout(1000)
    return [box.inner_text() for box in editor.page.locator(BOX).all() if box.is_visible()]


def test_text_is_seen_without_a_name(editor, picture, tmp_path):
    run_short(editor, WORKFLOWS / "quickstart_full.json", tmp_path)
    texts = shown(editor)
    picture(editor, f"text-{'nodes-2' if editor.nodes_2() else 'classic'}")
    assert any(text.startswith(INVERTED) for text in texts), texts
    assert editor.page.get_by_text("shown text").count() == 0
    assert "shown text" not in str(editor.prompt()) + str(editor.serialize())
    editor.page.evaluate(  # as undo does: with new nodes
        "() => app.loadGraphData(app.graph.serialize(), true, true, app.extensionManager.workflow.activeWorkflow)"
    )
    assert sorted(shown(editor)) == sorted(texts)


def test_a_warning_goes_with_its_reason(editor):
    """A node that has nothing to say in its next run."""
    prompts = editor.prompt().items()
    (target,) = (node for node, entry in prompts if "tractor" in str(entry["inputs"].get("text")))
    for word, warned in (("dragon", True), ("turtle", False)):
        editor.set_widget(int(target), "text", f"a {word}")
        assert editor.run() == "execution_success", editor.errors
        assert any("knows only its own drawn world" in text for text in shown(editor)) == warned, word


def test_text_of_another_workflows_run_is_not_shown(editor):
    """Bundled workflows share their nodes' numbers."""
    editor.load(WORKFLOWS / "quickstart_full.json")
    for node in editor.serialize()["nodes"]:
        if node["type"] in ("EI2_OneShotTune", "EI2_Invert"):
            editor.set_widget(node["id"], "steps", 4 if editor.nodes_2() else 5)  # else ComfyUI takes the run before
    editor.start_run()
    editor.load(WORKFLOWS / "learn_and_keep.json")
    while (outcome := editor.outcome()) is None:
        editor.page.wait_for_timeout(200)
    assert outcome == "execution_success" and shown(editor) == []


@pytest.mark.parametrize("opened", [False, True], ids=("closed", "open"))
def test_text_in_a_subgraph(editor, picture, opened):
    node = graph_with_blueprint(editor)
    editor.set_widget(node, "tune_steps", 3 if opened else 2)  # else ComfyUI takes the run before
    if opened:
        editor.open_subgraph(node)
    assert editor.run() == "execution_success", editor.errors
    if not opened:
        assert shown(editor) == []
        editor.open_subgraph(node)
    texts = shown(editor)
    picture(editor, f"text-subgraph-{'nodes-2' if editor.nodes_2() else 'classic'}-{'open' if opened else 'closed'}")
    assert any("steps" in text for text in texts), texts
    assert any(text.startswith(INVERTED) for text in texts), texts


def graph_with_blueprint(editor) -> object:
    """Opens a graph in which the blueprint edits the bundled clip; returns the id of its node."""
    editor.load(BLUEPRINT)
    (node,) = editor.serialize()["nodes"]
    for name, value in SHORT.items():
        editor.set_widget(node["id"], name, value)
    editor.page.evaluate(
        """([id, loaders]) => {
            const target = app.graph.getNodeById(id)
            const add = type => { const node = LiteGraph.createNode(type); app.graph.add(node); return node }
            for (const [type, values, links] of loaders) {
                const node = add(type)
                node.pos = [-500, type === 'EI2_LoadMini' ? 700 : 0]
                for (const widget of node.widgets ?? []) if (widget.name in values) widget.value = values[widget.name]
                for (const [output, input] of Object.entries(links))
                    node.connect(node.outputs.findIndex(o => o.name === output), target,
                                 target.inputs.findIndex(i => i.name === input))
            }
            const preview = add('PreviewImage')
            preview.pos = [500, 0]
            target.connect(0, preview, 0)
        }""",
        [node["id"], LOADERS],
    )
    return node["id"]
