"""The first workflow's one node shows how its tuning gets on.

Nodes 2.0 only: newer front ends draw no picture on such a node in the classic renderer, and for this one want to be
told whose (`previewExposures`).
"""

from __future__ import annotations

import pytest

from devtools.environment import ROOT

from .boxes import collisions
from .editor import NODES_2, Editor

EDIT_VIDEO = 5  # the node of quickstart that stands for the whole edit
PREVIEW_EVERY = 10  # steps of its tuning


@pytest.fixture(scope="module")
def editor(server):
    with Editor(server.url, settings=NODES_2) as editor:
        yield editor


def test_first_workflow_shows_the_tuning(editor, picture):
    editor.load(ROOT / "workflows" / "quickstart.json")
    editor.fit()
    editor.set_widget(EDIT_VIDEO, "tune_steps", PREVIEW_EVERY)
    editor.set_widget(EDIT_VIDEO, "invert_steps", 2)
    assert editor.run() == "execution_success", editor.errors
    editor.page.wait_for_timeout(1000)
    picture(editor, "run-quickstart-nodes-2")
    wide = "pictures => pictures.map(picture => picture.naturalWidth)"
    shown = editor.page.locator(f'[data-node-id="{EDIT_VIDEO}"] img').evaluate_all(wide)
    assert max(shown, default=0) > 100
    assert collisions(editor) == []
