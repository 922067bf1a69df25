"""How long each node goes on after an interrupt: no longer than one of its own steps takes."""

from __future__ import annotations

import statistics
import time

import pytest

from batch.client import Interrupted

from ...server.graphs import Graph, changed, controlled, edit_graph, node

pytestmark = pytest.mark.server

SLACK = 1.0  # seconds: for the host to hear of it and to say so, on a busy machine
AFTER = 2  # steps that are seen first
THOROUGH = pytest.mark.thorough


def long_graph() -> Graph:
    return edit_graph(video="red_car.mp4", size=128, frames=16, tune_steps=200, invert_steps=100)


def for_edit(**changes) -> Graph:
    """Little to do before the edit, much in it."""
    return changed(edit_graph(video="red_car.mp4", size=128, frames=16, tune_steps=1, invert_steps=60), changes)


def null_text() -> Graph:
    changes = {"invert.null_text": True, "invert.null_inner_steps": 10, "invert.empty": ("negative", 0)}
    return changed(for_edit(), {**changes, "invert.steps": 4})


def probing() -> Graph:
    probe = node(
        "EI2_ShiftProbe",
        model=("inflate", 0),
        latent=("encode", 0),
        positive=("source_prompt", 0),
        timesteps=", ".join(map(str, range(1, 900, 10))),
    )
    return _only("probe", {**long_graph(), "probe": probe})


def comparing(kind: str, **inputs) -> Graph:
    """Many large frames beside each other."""
    big = {"image": node("EmptyImage", width=1024, height=1024, batch_size=48, color=0)}
    return {**big, "work": node(kind, **inputs), "asks": node("PreviewAny", source=("work", 0))}


def _only(name: str, graph: Graph) -> Graph:
    kept = {key: value for key, value in graph.items() if key not in ("tune", "invert", "edit", "decode", "save")}
    return {**kept, "asks": node("PreviewAny", source=(name, 0))}


PICTURES = {"source": ("image", 0), "reconstruction": ("image", 0)}
NODES = {
    "tune": (long_graph, "tune"),
    "probe": (probing, "probe"),
    "invert": (lambda: changed(long_graph(), {"tune.steps": 1}), "invert"),
    "null-text": (null_text, "invert"),
    "edit": (for_edit, "edit"),
    "controlled edit": (lambda: controlled(for_edit(), blend=("car", "tractor")), "edit"),
    "reconstruction check": (lambda: comparing("EI2_ReconstructionCheck", **PICTURES), "work"),
    "metrics": (
        lambda: (
            comparing("EI2_Metrics", source=("image", 0), edit=("image", 0), mask=("mask", 0))
            | {"mask": node("SolidMask", value=0.5, width=1024, height=1024)}
        ),
        "work",
    ),
    "compare": (
        lambda: comparing("EI2_Compare", video_1=("image", 0), video_2=("image", 0), labels="x" * 9000, layout="wipe"),
        "work",
    ),
}
IN_CI = ("tune", "probe")


@pytest.mark.parametrize("name", [name if name in IN_CI else pytest.param(name, marks=THOROUGH) for name in NODES])
def test_an_interrupt_takes_effect_within_a_step(name, client, server):
    build, where = NODES[name]
    submitted, seen = client.submit(build()), []  # `seen`: step and time
    asked = None
    with pytest.raises(Interrupted) as interrupted:

        def watch(event) -> None:
            nonlocal asked
            state = event.progress().get(where)
            if state and (not seen or state[0] > seen[-1][0]):
                seen.append((state[0], event.time))
            if len(seen) > AFTER and asked is None:
                asked = time.monotonic()
                client.interrupt(submitted)

        client.wait(submitted, watch, timeout=300)
    delay = time.monotonic() - asked
    steps = [(later - before) / (b - a) for (a, before), (b, later) in zip(seen, seen[1:]) if b > a]
    longest = max(steps)
    usual = statistics.median(steps)
    print(f"{name}: stopped after {delay:.2f} s; a step takes {usual:.2f} s, at most {longest:.2f} s")
    assert interrupted.value.node == where
    assert delay <= longest + SLACK
    server.check()
