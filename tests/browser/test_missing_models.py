"""A workflow whose models are missing says which: when it is opened or when it is run, and nothing of it runs.

The bundled miniature is never missing; in its place, a checkpoint of one's own is.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from devtools.environment import ROOT
from devtools.server import Server

from .editor import Editor

WORKFLOWS = ROOT / "workflows"
NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
LOADERS = ("CheckpointLoaderSimple", "ControlNetLoader", "LoadBackgroundRemovalModel", "EI2_LoadTune")
MISSING = "my_checkpoint.safetensors"
PATIENCE = 15  # seconds until the message is there
MESSAGES = "[role=dialog], [role=alert], [role=status], [data-testid=properties-panel]"
DETAILS = re.compile("View details|See Errors")  # newer editors' button where several things are missing
SEEN = "boxes => boxes.filter(box => box.checkVisibility()).map(box => box.innerText).join(' ')"


@pytest.fixture(scope="module")
def editor():
    """As users have it, of a server on which nothing was learned before."""
    with Server() as server:
        with Editor(server.url, settings={"Comfy.Workflow.ShowMissingModelsWarning": True}) as editor:
            yield editor


def with_checkpoint(name: str, folder: Path) -> tuple[Path, list[str]]:
    """A copy of a workflow with Load Checkpoint in the place of the miniature's loader, and the files that it needs."""
    content = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    for node in content["nodes"]:
        if node["type"] == "EI2_LoadMini":
            node["type"], node["widgets_values"] = LOADERS[0], [MISSING]
            node["inputs"] = [{"name": "ckpt_name", "type": "COMBO", "widget": {"name": "ckpt_name"}, "link": None}]
            node["properties"] = {"Node name for S&R": LOADERS[0]}
    copy = folder / f"{name}_missing.json"
    copy.write_text(json.dumps(content), encoding="utf-8")
    return copy, [node["widgets_values"][0] for node in content["nodes"] if node["type"] in LOADERS]


def messages(editor: Editor) -> str:
    """What the editor says now, with all details."""
    if (details := editor.page.get_by_role("button", name=DETAILS).first).is_visible():
        details.evaluate("button => button.click()")  # a message about something else may lie on top
        editor.page.wait_for_timeout(1000)
    return editor.page.locator(MESSAGES).evaluate_all(SEEN)


@pytest.mark.parametrize("name", NAMES)
def test_missing_models_are_named(editor, picture, name, tmp_path):
    """By the editor: when the workflow is opened, where it looks for models then, or when it is run. Where the host
    lacks a node, that is what is named."""
    copy, files = with_checkpoint(name, tmp_path)
    editor.load(copy, keep_message=True)
    editor.page.wait_for_timeout(2500)
    opened, unknown = messages(editor), editor.missing_nodes()
    picture(editor, f"missing-{name}")
    editor.close_dialogs()
    answers = lambda answer: answer.url.endswith("/prompt") and answer.request.method == "POST"
    with editor.page.expect_response(answers) as answer:
        editor.page.keyboard.press("Control+Enter")
    assert answer.value.status == 400  # nothing runs
    assert unknown or all(file in answer.value.text() for file in files)
    unsaid = lambda: [what for what in unknown or files if what not in opened + messages(editor)]
    for _ in range(PATIENCE):
        editor.page.wait_for_timeout(1000)
        if not unsaid():
            break
    picture(editor, f"missing-{name}-run")
    assert unsaid() == []
    editor.close_dialogs()
