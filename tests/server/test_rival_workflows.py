"""The bundled workflows with attention control, shortened: what they give, and what a second run computes again."""

from __future__ import annotations

import io

import av
import pytest

from devtools.demo.workflows import files_of
from miniature.clips import EDITS

from .graphs import VIDEO_SIZES, bundled, changed, names, only, run

pytestmark = pytest.mark.server

FRAMES, STEPS, INNER, SIZE = 4, 4, 2, 128
NULL_TEXT = {"video_p2p": INNER, "vid2vid_zero": 1}  # inner steps; the third goes without
WORKFLOWS = (*NULL_TEXT, "ei2_control_blend")


@pytest.fixture(scope="module", params=WORKFLOWS)
def first(request, session_client):
    """A workflow's name, its shortened graph and that graph's first run."""
    graph = bundled(request.param, FRAMES, STEPS, STEPS)
    (invert,) = names(graph, "EI2_Invert")
    assert graph[invert]["inputs"]["null_text"] == (request.param in NULL_TEXT)
    graph = changed(graph, {f"{invert}.null_inner_steps": NULL_TEXT.get(request.param, INNER)})
    return request.param, graph, run(session_client, graph)


def saver(graph, name: str) -> str:
    """The node that saves that video."""
    savers = names(graph, "SaveVideo")
    (found,) = [node for node in savers if graph[node]["inputs"]["filename_prefix"].endswith(f"_{name}")]
    return found


def test_outputs(client, first):
    """Three videos, of clips that differ, a heat map for each of the seven words, and the report."""
    workflow, graph, result = first
    videos = {}
    for name, (width, height) in VIDEO_SIZES.items():
        (file,) = files_of(graph, result.outputs, f"EI2/{workflow}_{name}")
        with av.open(io.BytesIO(client.view(file))) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert len(frames) == FRAMES and all(frame.shape == (height, width, 3) for frame in frames), name
        assert all(frame.std() > 5 for frame in frames), f"{name} shows nothing"
        videos[name] = [frame.astype(float) for frame in frames]
    videos["source"] = [frame[-SIZE:, :SIZE] for frame in videos["comparison"]]  # below its label, beside the edit
    for one, other in (("source", "edit"), ("reconstruction", "edit"), ("source", "reconstruction")):
        assert any(abs(a - b).max() > 10 for a, b in zip(videos[one], videos[other])), (one, other)

    sampler = only(graph, "EI2_EditSample")
    (shown,) = [name for name in names(graph, "PreviewImage") if graph[name]["inputs"]["images"] == [sampler, 2]]
    (maps,) = result.pictures(shown)
    assert maps.shape[1] > maps.shape[2], "seven words below each other, four frames side by side"
    assert maps.std() > 0.1

    report = result.outputs[only(graph, "PreviewAny")]["text"][0]
    assert f"words: red → {EDITS[workflow]['color']}; the other 6 stay" in report
    assert ("LocalBlend" in report) == (workflow != "vid2vid_zero")


def test_progress(first):
    """Null-text steps are counted behind the steps of the inversion."""
    workflow, graph, result = first
    total = STEPS + STEPS * NULL_TEXT.get(workflow, 0)
    assert result.progress(only(graph, "EI2_Invert"))[-1] == (total, total)
    assert result.progress(only(graph, "EI2_EditSample"))[-1] == (STEPS, STEPS)


def test_what_runs_again(client, first):
    """Nothing, when nothing has changed; with another edit prompt neither the tuning nor the inversion."""
    workflow, graph, result = first
    again = run(client, graph)
    assert again.executed() == set() and again.shown() == result.shown() != set()

    control = only(graph, "EI2_AttentionControl")
    inputs = graph[control]["inputs"]
    old, keys = EDITS[workflow]["color"], ("target_prompt", "blend_target")
    purples = {f"{control}.{key}": inputs[key].replace(old, "purple") for key in keys}
    other = run(client, changed(graph, purples))
    assert only(graph, "EI2_EditSample") in other.executed()
    kept = {name for name in graph if graph[name]["class_type"] in ("EI2_OneShotTune", "EI2_Invert", "VAEEncode")}
    assert not other.executed() & kept
    assert other.files(saver(graph, "edit")) != result.files(saver(graph, "edit"))
