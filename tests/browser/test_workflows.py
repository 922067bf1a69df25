"""The workflows in ComfyUI's own graph editor, in a real browser on a real server.

Skipped without a browser: it is not part of the development environment (see `devtools/browser.py`).
`COMFYUI_FRONT_END=newest python3 dev.py test tests/browser` does it with the newest front end there is.
"""

from __future__ import annotations

import itertools
import json
from importlib.metadata import version
from pathlib import Path

import pytest

from devtools import front_end
from devtools.browser import Editor, missing
from devtools.server import Server

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
PAIRS = sorted(WORKFLOWS.glob("*.json"))
TUNE, INVERT, SAVED_EDIT = 8, 9, 19  # nodes of the quickstart
SHOWN = ("video-preview", "preview")  # the editor's own inputs
TITLE = 30  # height of a node's title bar, which its position leaves out

pytestmark = [
    pytest.mark.browser,
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]


@pytest.fixture(scope="module")
def editor():
    with Server() as server, Editor(server.url) as editor:
        yield editor


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


def with_learning_rate(rate: float, folder: Path) -> Path:
    """A copy of the quickstart with that learning rate saved in it."""
    content = read(WORKFLOWS / "quickstart.json")
    tune = next(node for node in content["nodes"] if node["id"] == TUNE)
    tune["widgets_values"][1] = rate
    copy = folder / "copy.json"
    copy.write_text(json.dumps(content), encoding="utf-8")
    return copy


def test_the_chosen_front_end_is_shown(editor):
    folder = front_end.chosen()
    assert editor.version() == (folder.name if folder else version(front_end.PACKAGE))


@pytest.mark.parametrize("workflow", PAIRS, ids=lambda path: path.stem)
def test_same_as_api_twin(editor, workflow):
    editor.load(workflow)
    assert plain(editor.prompt()) == plain(read(WORKFLOWS / "api" / workflow.name))


@pytest.mark.parametrize("workflow", PAIRS, ids=lambda path: path.stem)
def test_loads_without_errors(editor, workflow):
    editor.errors.clear()
    editor.load(workflow)
    editor.fit()
    editor.page.wait_for_timeout(1000)
    assert editor.missing_nodes() == []
    # The editor asks the registry about packs; where it may not, the browser calls that an error.
    assert [error for error in editor.errors if "Content Security Policy" not in error] == []


@pytest.mark.parametrize("workflow", PAIRS, ids=lambda path: path.stem)
def test_nodes_do_not_overlap(editor, workflow):
    editor.load(workflow)
    boxes = {}
    for node in editor.serialize()["nodes"]:
        (x, y), (width, height) = node["pos"], node["size"]
        boxes[node["id"]] = (x, y - TITLE, x + width, y + height)
    overlapping = [
        (one, two)
        for (one, a), (two, b) in itertools.combinations(boxes.items(), 2)
        if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
    ]
    assert overlapping == []


def test_unknown_node_is_noticed(editor, tmp_path):
    content = read(WORKFLOWS / "quickstart.json")
    content["nodes"][0]["type"] = "EI2_NoSuchNode"
    copy = tmp_path / "copy.json"
    copy.write_text(json.dumps(content), encoding="utf-8")
    editor.load(copy)
    assert editor.missing_nodes() == ["EI2_NoSuchNode"]
    editor.page.keyboard.press("Escape")  # the editor's own message about it


@pytest.mark.parametrize("rate", [3e-4, 3e-5, 1.5e-5, 1e-6])
def test_learning_rate_is_not_rounded(editor, tmp_path, rate):
    editor.load(with_learning_rate(rate, tmp_path))
    assert editor.prompt()[str(TUNE)]["inputs"]["learning_rate"] == rate
    editor.load(WORKFLOWS / "quickstart.json")
    editor.set_widget(TUNE, "learning_rate", rate)
    assert editor.prompt()[str(TUNE)]["inputs"]["learning_rate"] == rate


def test_run_shows_the_edited_video(editor):
    editor.load(WORKFLOWS / "quickstart.json")
    editor.set_widget(TUNE, "steps", 2)
    editor.set_widget(INVERT, "steps", 2)
    editor.errors.clear()
    assert editor.run() == "execution_success", editor.errors
    editor.fit()
    editor.page.wait_for_timeout(3000)  # the videos are being loaded
    videos = editor.videos()
    for name in ("source", "reconstruction", "edit"):
        shown = [video["size"] for video in videos if f"filename={name}_" in video["source"]]
        assert shown == [[128, 128]], f"{name}: {videos}"


def test_the_first_run_keeps_the_tune_that_the_second_one_loads(editor):
    """What the note in the graph promises: the part without the file runs, and then all does."""
    editor.load(WORKFLOWS / "reuse_tune.json")
    for name, class_type in ((node["id"], node["type"]) for node in editor.serialize()["nodes"]):
        if class_type in ("EI2_OneShotTune", "EI2_Invert"):
            editor.set_widget(name, "steps", 2)
    assert editor.run() == "execution_success", editor.errors
    editor.page.keyboard.press("Escape")  # should the editor have a message about the missing file
    assert editor.run() == "execution_success", editor.errors
    editor.fit()
    editor.page.wait_for_timeout(3000)
    assert [video for video in editor.videos() if "filename=reuse_tune_" in video["source"]]
