"""Bundled workflows run from the editor, and show what they have made."""

from __future__ import annotations

from devtools.environment import ROOT
from tests.server.graphs import VIDEO_SIZES

from .boxes import collisions

WORKFLOWS = ROOT / "workflows"
TUNE, INVERT, EDIT_PROMPT = 8, 9, 4  # nodes of quickstart_full
EDIT_VIDEO = 5  # the node of quickstart that stands for the whole edit


def test_first_workflow_shows_source_and_edit(editor, picture):
    editor.load(WORKFLOWS / "quickstart.json")
    editor.set_widget(EDIT_VIDEO, "tune_steps", 2)
    editor.set_widget(EDIT_VIDEO, "invert_steps", 3)  # another inversion than the next test's, which else finds it
    picture(editor, "quickstart-opened")
    editor.errors.clear()
    assert editor.run() == "execution_success", editor.errors
    editor.page.wait_for_timeout(3000)  # the video is being loaded
    picture(editor, "run-quickstart")
    shown = [tuple(v["size"]) for v in editor.videos() if "filename=quickstart_" in v["source"]]
    assert shown == [VIDEO_SIZES["comparison"]]
    assert collisions(editor) == []


def test_run_shows_the_edited_video(editor, picture):
    editor.load(WORKFLOWS / "quickstart_full.json")
    editor.set_widget(TUNE, "steps", 2)
    editor.set_widget(INVERT, "steps", 2)
    editor.errors.clear()
    assert editor.run() == "execution_success", editor.errors
    editor.fit()
    editor.page.wait_for_timeout(3000)  # the videos are being loaded
    picture(editor, "run-quickstart_full")
    assert collisions(editor) == []
    assert editor.text(INVERT).startswith("computed") and "|" not in editor.text(INVERT)  # in one box, not in two
    assert "shown text" not in str(editor.prompt())  # it is no input
    videos = editor.videos()
    for name, size in VIDEO_SIZES.items():
        shown = [tuple(video["size"]) for video in videos if f"filename={name}_" in video["source"]]
        assert shown == [size], f"{name}: {videos}"


def test_only_what_changes_is_saved_again(editor, server):
    """Another edit prompt: the reconstruction is not saved as a new file, nor is anything learned anew.
    The players that the editor shows below videos count as inputs, unless `web/players.js` takes them out."""
    editor.load(WORKFLOWS / "quickstart_full.json")
    assert "video-preview" not in str(editor.prompt())
    editor.set_widget(TUNE, "steps", 3)
    editor.set_widget(INVERT, "steps", 2)
    saved = lambda: {path.name for path in (server.base / "output" / "EI2").glob("*.mp4")}
    assert editor.run() == "execution_success", editor.errors
    editor.page.wait_for_timeout(3000)
    before = saved()
    assert "video-preview" not in str(editor.prompt())
    editor.set_widget(EDIT_PROMPT, "text", "a green circle on a dotted white background")
    assert editor.run() == "execution_success", editor.errors
    assert sorted(name.rsplit("_", 2)[0] for name in saved() - before) == ["comparison", "edit"]


def test_what_one_workflow_keeps_the_next_one_loads(editor, server, picture):
    for tune in (server.base / "models" / "ei2_tunes").glob("*.safetensors"):
        tune.unlink()  # other tests' tunes, of fewer frames: the second workflow loads the one that is saved first
    for workflow in ("learn_and_keep", "load_and_edit"):
        editor.load(WORKFLOWS / f"{workflow}.json")
        for name, class_type in ((node["id"], node["type"]) for node in editor.serialize()["nodes"]):
            if class_type in ("EI2_OneShotTune", "EI2_Invert"):
                editor.set_widget(name, "steps", 2)
        editor.page.keyboard.press("Escape")  # should the editor have a message about a file that it did not know
        assert editor.run() == "execution_success", editor.errors
        editor.fit()
        editor.page.wait_for_timeout(3000)
        picture(editor, f"run-{workflow}")
        assert collisions(editor) == []  # nodes grow with what they show
    assert [video for video in editor.videos() if "filename=load_and_edit_" in video["source"]]
