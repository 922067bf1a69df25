"""What the user is told before a long run that is likely to be in vain."""

from __future__ import annotations

import pytest

from .graphs import Graph, changed, edit_graph, node, run

pytestmark = pytest.mark.server

OWN_WORLD = "The miniature model knows only its own drawn world"
FRAMES_LIMIT = {"video.max_frames": 5}  # changes no frame of the clip of four, but makes the run a new one to the host


def quick(**texts) -> Graph:
    return changed(edit_graph(tune_steps=1, invert_steps=2, **texts), FRAMES_LIMIT)


def by_link(graph: Graph) -> Graph:
    return {**changed(graph, {"edit_prompt.text": ("words", 0)}), "words": node("PrimitiveString", value=" ")}


@pytest.mark.parametrize(
    "graph, words",
    [
        (quick(source_prompt=" "), ["positive is empty", "write what the clip shows"]),
        (quick(edit_prompt=""), ["positive is empty", "write what the edit shows"]),
        (by_link(quick()), ["positive is empty", "write what the edit shows"]),
        (quick(source_prompt="a man on a motorbike"), [OWN_WORLD, "not the words man, motorbike of positive"]),
        (quick(), []),
        (quick(edit_prompt="", cfg=1.0), []),  # a reconstruction
    ],
    ids=["empty source", "empty edit", "empty by link", "a real film", "all well", "reconstruction"],
)
def test_a_warning_before_the_run(graph, words, client, server, forget):
    forget()
    before = len(server.log.read_bytes())
    run(client, graph)
    log = server.log.read_bytes()[before:].decode("utf-8", errors="replace")
    assert [word for word in words if word not in log] == []
    assert bool(words) == (OWN_WORLD in log or "positive is empty" in log)


def test_the_miniature_says_what_it_knows(client, forget):
    forget()
    shown = run(client, quick()).outputs["mini"]["text"][0]
    assert "knows only drawn things in drawn places" in shown and "real film" in shown
