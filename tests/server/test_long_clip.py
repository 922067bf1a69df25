"""The bundled workflow for long clips, shortened: learned, inverted and edited in windows on a real server."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest

from devtools.demo.workflows import VIDEOS, files_of
from miniature.clips import target_prompt

from .graphs import NEWER_WINDOWS, bundled, changed, names, run

pytestmark = pytest.mark.server

FRAMES, WINDOW, STEPS = 7, 4, 4


@pytest.fixture(scope="module")
def graph():
    graph = bundled("long_clip", FRAMES, STEPS, STEPS)
    (tune,), (windows,) = names(graph, "EI2_OneShotTune"), names(graph, "EI2_ContextWindows")
    assert graph[tune]["inputs"]["window_frames"] == graph[windows]["inputs"]["context_length"] < 12
    return changed(graph, {f"{tune}.window_frames": WINDOW, f"{windows}.context_length": WINDOW})


@pytest.fixture(scope="module")
def first(session_client, graph):
    return run(session_client, graph)


def video(client, graph, ran, name: str) -> list[np.ndarray]:
    (file,) = files_of(graph, ran.outputs, f"EI2/long_clip_{name}")
    with av.open(io.BytesIO(client.view(file))) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_videos_of_the_whole_clip(client, graph, first):
    for name in VIDEOS:
        frames = video(client, graph, first, name)
        assert len(frames) == FRAMES and all(frame.std() > 5 for frame in frames), name


def test_progress_counts_steps_not_windows(graph, first):
    for class_type in ("EI2_OneShotTune", "EI2_Invert", "EI2_EditSample"):
        for name in names(graph, class_type):
            assert first.progress(name)[-1] == (STEPS, STEPS), class_type


def test_another_edit_keeps_tuning_and_inversion(client, graph, first):
    prompts = names(graph, "CLIPTextEncode")
    (edit,) = [name for name in prompts if graph[name]["inputs"]["text"] == target_prompt("long_clip")]
    other = run(client, changed(graph, {f"{edit}.text": "a red car in the snow"}))
    assert not other.executed() & set(names(graph, "EI2_OneShotTune", "EI2_Invert", "EI2_ContextWindows"))
    assert set(names(graph, "EI2_EditSample")) & other.executed()


def test_graphs_with_the_hosts_own_windows_keep_working(client, graph, first, exact):
    """As workflows saved with this pack's earlier versions have them, on every host that still has the node."""
    (windows,) = names(graph, "EI2_ContextWindows")
    settings = dict(context_schedule="standard_static", context_stride=1, closed_loop=False)
    inputs = graph[windows]["inputs"] | settings | dict(fuse_method="pyramid", dim=0) | NEWER_WINDOWS
    other = {**graph, windows: {**graph[windows], "class_type": "ContextWindowsManual", "inputs": inputs}}
    ran = run(client, other)
    if exact:
        pairs = zip(video(client, other, ran, "edit"), video(client, graph, first, "edit"))
        assert all(np.array_equal(*pair) for pair in pairs)
