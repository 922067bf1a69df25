"""Every bundled workflow opens in ComfyUI's own graph editor as it was meant."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import pytest

from devtools import front_end
from devtools.environment import ROOT
from tests.server.graphs import skip_if_older

from .hand import Hand

WORKFLOWS = ROOT / "workflows"
PAIRS = sorted(WORKFLOWS.glob("*.json"))
TUNE = 8  # node of the quickstart
BLUEPRINT = "Edit video (EI2)"
SHOWN = ("video-preview", "preview")  # the editor's own inputs


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def plain(prompt: dict) -> dict:
    """A prompt without what the editor adds for itself: the player below an uploaded video, and the box that a
    PreviewAny node shows its text in, count as inputs."""
    return {
        node: {
            "class_type": content["class_type"],
            "title": content["_meta"]["title"],
            "inputs": {name: value for name, value in content["inputs"].items() if name not in SHOWN},
        }
        for node, content in prompt.items()
    }


def without_additions(prompt: dict, twin: dict) -> dict:
    """A prompt without inputs that a newer host has added to its own nodes since the twin was saved."""
    result = {}
    for node, content in prompt.items():
        known = twin[node]["inputs"] if node in twin and not content["class_type"].startswith("EI2_") else None
        inputs = content["inputs"]
        result[node] = {**content, "inputs": {k: v for k, v in inputs.items() if known is None or k in known}}
    return result


def with_learning_rate(rate: float, folder: Path) -> Path:
    """A copy of the quickstart with that learning rate saved in it."""
    content = read(WORKFLOWS / "quickstart_full.json")
    tune = next(node for node in content["nodes"] if node["id"] == TUNE)
    tune["widgets_values"][1] = rate
    copy = folder / "copy.json"
    copy.write_text(json.dumps(content), encoding="utf-8")
    return copy


def test_the_chosen_front_end_is_shown(editor):
    folder = front_end.folder()
    assert editor.version() == (folder.name if folder else version(front_end.PACKAGE))


@pytest.mark.parametrize("workflow", PAIRS, ids=lambda path: path.stem)
def test_workflow_opens(editor, picture, workflow):
    """Without errors, all nodes known, and it would run what its twin in API format says."""
    editor.errors.clear()
    editor.load(workflow)
    editor.fit()
    picture(editor, f"workflow-{workflow.stem}", wait=1)
    missing = set(editor.missing_nodes())
    skip_if_older(workflow.stem, missing)
    assert missing == set()
    # The editor asks the registry about packs; where it may not, the browser calls that an error.
    assert [error for error in editor.errors if "Content Security Policy" not in error] == []
    twin = plain(read(WORKFLOWS / "api" / workflow.name))
    assert without_additions(plain(editor.prompt()), twin) == twin


def test_blueprint_opens(editor, picture):
    """It is found in the node search, and its node stands for the whole edit."""
    hand = Hand(editor)
    hand.new_workflow()
    editor.errors.clear()
    node = hand.add(BLUEPRINT, 600, 300)
    picture(editor, "blueprint")
    inside = editor.page.evaluate("id => app.graph.getNodeById(id).subgraph.nodes.map(n => n.type)", node)
    assert {"EI2_InflateUNet", "EI2_OneShotTune", "EI2_Invert", "EI2_EditSample"} <= set(inside)
    known = editor.page.evaluate("() => Object.keys(LiteGraph.registered_node_types)")
    assert set(inside) <= set(known)
    assert [error for error in editor.errors if "EI2" in error] == []


def test_unknown_node_is_noticed(editor, tmp_path):
    content = read(WORKFLOWS / "quickstart_full.json")
    content["nodes"][0]["type"] = "EI2_NoSuchNode"
    copy = tmp_path / "copy.json"
    copy.write_text(json.dumps(content), encoding="utf-8")
    editor.load(copy)
    assert editor.missing_nodes() == ["EI2_NoSuchNode"]


@pytest.mark.parametrize("rate", [3e-4, 3e-5, 1.5e-5, 1e-6])
def test_learning_rate_is_not_rounded(editor, tmp_path, rate):
    editor.load(with_learning_rate(rate, tmp_path))
    assert editor.prompt()[str(TUNE)]["inputs"]["learning_rate"] == rate
    editor.load(WORKFLOWS / "quickstart_full.json")
    editor.set_widget(TUNE, "learning_rate", rate)
    assert editor.prompt()[str(TUNE)]["inputs"]["learning_rate"] == rate
