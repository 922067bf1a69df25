"""A workflow whose model is missing says so: when it is opened or when it is run, and nothing of it runs."""

from __future__ import annotations

import pytest

from devtools.environment import ROOT
from devtools.server import Server

from .editor import Editor

WORKFLOWS = ROOT / "workflows"
WITHOUT_MODELS = {  # workflows that need a file that the bundled ones lack
    "load_and_edit": "learned_00001_.safetensors",
    "sd15_object_swap": "v1-5-pruned-emaonly-fp16.safetensors",
    "sd15_restyle": "v1-5-pruned-emaonly-fp16.safetensors",
}
MESSAGES = "[role=dialog], [role=alert], [role=status]"


@pytest.fixture(scope="module")
def editor():
    """As users have it, of a server on which nothing was learned before."""
    with Server() as server:
        with Editor(server.url, settings={"Comfy.Workflow.ShowMissingModelsWarning": True}) as editor:
            yield editor


@pytest.mark.parametrize("name", WITHOUT_MODELS)
def test_missing_model_is_named(editor, picture, name):
    """By the editor: when the workflow is opened, where it looks for models then, or when it is run."""
    file = WITHOUT_MODELS[name]
    messages = lambda: " ".join(box.inner_text() for box in editor.page.locator(MESSAGES).all() if box.is_visible())
    editor.load(WORKFLOWS / f"{name}.json")
    editor.page.wait_for_timeout(2500)
    opened = messages()
    picture(editor, f"missing-{name}")
    editor.page.keyboard.press("Escape")
    answers = lambda answer: answer.url.endswith("/prompt") and answer.request.method == "POST"
    with editor.page.expect_response(answers) as answer:
        editor.page.keyboard.press("Control+Enter")
    assert answer.value.status == 400 and file in answer.value.text()  # nothing runs
    editor.page.wait_for_timeout(2000)
    picture(editor, f"missing-{name}-run")
    assert file in opened + messages()
    editor.page.keyboard.press("Escape")
