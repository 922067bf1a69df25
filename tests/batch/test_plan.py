"""How a workflow is taken apart: one tuning per clip, files in its place, and nothing run that no result needs."""

from __future__ import annotations

import json

import pytest

from batch import plan
from batch.graph import is_link

from .conftest import BUNDLED


def whole(graph: dict) -> bool:
    """Whether every link leads somewhere."""
    links = [value for entry in graph.values() for value in entry["inputs"].values() if is_link(value)]
    return all(link[0] in graph for link in links)


@pytest.mark.parametrize("file", BUNDLED, ids=lambda file: file.stem)
def test_every_bundled_workflow(file):
    graph = json.loads(file.read_text(encoding="utf-8"))
    before = json.dumps(graph)
    done = {}
    for node in plan.tunes(graph):
        key = plan.tune_key(graph, node)
        run = plan.tune_run(graph, node, done, key, 25, None)
        assert whole(run) and run[node]["inputs"]["snapshot_every"] == 25
        kinds = [entry["class_type"] for entry in run.values()]
        assert kinds.count("EI2_SaveTune") == 1 and not {"EI2_Invert", "EI2_EditSample", "SaveVideo"} & set(kinds)
        done[node] = key
    first = plan.edit_run(graph, done, "name", first=True, scores=True)
    assert whole(first.graph) and plan.EDIT in first.collect.values() and plan.SOURCE in first.collect.values()
    assert set(first.texts.values()) == {plan.SCORES, plan.RECONSTRUCTION}
    kinds = [entry["class_type"] for entry in first.graph.values()]
    assert "EI2_OneShotTune" not in kinds and not any("Preview" in kind for kind in kinds)
    again = plan.edit_run(graph, done, "name", first=False, scores=False)
    assert whole(again.graph) and len(again.graph) < len(first.graph) and not again.texts
    assert json.dumps(graph) == before


def test_a_tune_is_the_same_for_all_edits_of_a_clip(quickstart):
    key = plan.tune_key(quickstart, "8")
    quickstart["4"]["inputs"]["text"] = "a green star"
    quickstart["11"]["inputs"]["cfg"] = 5.0
    quickstart["8"]["inputs"] |= {"snapshot_every": 5, "resume_from": "a.safetensors", "preview_every": 9}
    assert plan.tune_key(quickstart, "8") == key
    quickstart["1"]["inputs"]["video"] = "other.mp4"
    assert plan.tune_key(quickstart, "8") != key


def test_too_little_memory_goes_in_windows(quickstart):
    graph, length = plan.in_windows(quickstart, 24)
    assert length == 12 and graph["8"]["inputs"]["window_frames"] == 12
    window = graph["9"]["inputs"]["model"][0]
    assert graph[window]["inputs"]["model"] == ["8", 0] and graph["11"]["inputs"]["model"] == [window, 0]
    assert graph[window]["inputs"]["context_length"] == 12 and graph[window]["inputs"]["context_overlap"] == 3
    assert plan.tune_key(graph, "8") != plan.tune_key(quickstart, "8")
    shorter, length = plan.in_windows(graph, 24)
    assert length == 6 and shorter[window]["inputs"]["context_length"] == 6
    assert plan.in_windows(quickstart, 6) is None
    quickstart["9"]["inputs"]["null_text"] = True
    assert plan.in_windows(quickstart, 24) is None


def test_longer_clips_cost_more(quickstart):
    costs = [plan.cost(quickstart, frames, 0, rows) for frames, rows in ((8, 1), (8, 5), (24, 5))]
    assert costs == sorted(costs) and plan.cost(quickstart, 500, 0, 5) == costs[-1]  # max_frames is 24
