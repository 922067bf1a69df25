"""Bundled workflows run from the editor, and show what they have made."""

from __future__ import annotations

from devtools.environment import ROOT

from .boxes import collisions

WORKFLOWS = ROOT / "workflows"
TUNE, INVERT = 8, 9  # nodes of the quickstart


def test_run_shows_the_edited_video(editor, picture):
    editor.load(WORKFLOWS / "quickstart.json")
    editor.set_widget(TUNE, "steps", 2)
    editor.set_widget(INVERT, "steps", 2)
    editor.errors.clear()
    assert editor.run() == "execution_success", editor.errors
    editor.fit()
    editor.page.wait_for_timeout(3000)  # the videos are being loaded
    picture(editor, "run-quickstart")
    assert collisions(editor) == []
    assert editor.text(INVERT).startswith("computed") and "|" not in editor.text(INVERT)  # in one box, not in two
    assert "shown text" not in str(editor.prompt())  # it is no input
    videos = editor.videos()
    for name in ("source", "reconstruction", "edit"):
        shown = [video["size"] for video in videos if f"filename={name}_" in video["source"]]
        assert shown == [[128, 128]], f"{name}: {videos}"


def test_the_first_run_keeps_the_tune_that_the_second_one_loads(editor, picture):
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
    picture(editor, "run-reuse_tune")
    assert collisions(editor) == []  # nodes grow with what they show
    assert [video for video in editor.videos() if "filename=reuse_tune_" in video["source"]]
