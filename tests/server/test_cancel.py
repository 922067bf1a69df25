"""Cancelling a run in each of the long nodes: it stops soon, and what runs next computes as if nothing had been."""

from __future__ import annotations

import time

import pytest

from batch.client import Interrupted

from .graphs import changed, controlled, edit_graph, forget_results, run, same_pictures

pytestmark = pytest.mark.server

SOON = 5.0  # seconds; a step of this small model takes about a tenth
STEPS = 25  # of tuning, inversion and edit alike: enough that the request comes long before the end
RIVAL_STEPS, INNER = 12, 2  # with null-text and control, which are slower; null-text steps per step

# what is cancelled: the node, after how many of its steps, how many it has
PLAIN = {"tuning": ("tune", 2, STEPS), "inversion": ("invert", 2, STEPS), "edit": ("edit", 2, STEPS)}
RIVAL = {
    "null-text": ("invert", RIVAL_STEPS + 2, RIVAL_STEPS * (1 + INNER)),
    "controlled edit": ("edit", 2, RIVAL_STEPS),
}


@pytest.fixture(scope="module")
def plain_graph():
    return edit_graph(tune_steps=STEPS, invert_steps=STEPS)  # the edit takes as many


@pytest.fixture(scope="module")
def rival_graph():
    null_text = {"invert.null_text": True, "invert.null_inner_steps": INNER, "invert.empty": ("negative", 0)}
    graph = changed(edit_graph(preset="Video-P2P", tune_steps=2, invert_steps=RIVAL_STEPS), null_text)
    return controlled(graph, blend=("car", "tractor"))


def computed_anew(client, graph):
    """The pictures of a run that nobody cancels."""
    forget_results(client)
    result = run(client, graph)
    assert {"tune", "invert", "edit"} <= result.executed()
    return result.pictures()


@pytest.fixture(scope="module")
def plain_reference(session_client, plain_graph):
    return computed_anew(session_client, plain_graph)


@pytest.fixture(scope="module")
def rival_reference(session_client, rival_graph):
    return computed_anew(session_client, rival_graph)


@pytest.mark.parametrize("what", PLAIN)
def test_cancel(client, forget, plain_graph, plain_reference, exact, what, record_property):
    forget()
    record_property("seconds_until_stopped", cancel(client, plain_graph, *PLAIN[what]))
    check_usable(client, plain_graph, plain_reference, exact, PLAIN[what][0])


@pytest.mark.parametrize("what", RIVAL)
def test_cancel_with_control(client, forget, rival_graph, rival_reference, exact, what, record_property):
    forget()
    record_property("seconds_until_stopped", cancel(client, rival_graph, *RIVAL[what]))
    check_usable(client, rival_graph, rival_reference, exact, RIVAL[what][0])


def cancel(client, graph, name: str, after: int, steps: int) -> float:
    """Cancels a run when the node `name` has done `after` of its `steps`; returns the seconds until it stopped."""
    submitted = client.submit(graph)
    asked = done = total = None
    with pytest.raises(Interrupted) as interrupted:

        def interrupt(event) -> None:
            nonlocal asked, done, total
            state = event.progress().get(name)
            if state and asked is None and state[0] >= after:
                asked, (done, total) = time.monotonic(), state
                client.interrupt(submitted)

        client.wait(submitted, interrupt, timeout=120)
    seconds = time.monotonic() - asked
    print(f"{name}: asked at step {done:.0f} of {total:.0f}, stopped after {seconds:.2f} s")
    assert interrupted.value.node == name
    assert seconds < SOON
    assert total == steps and done < total
    return round(seconds, 3)


def check_usable(client, graph, reference, exact: bool, name: str) -> None:
    """The loaded model is the one the cancelled run used: a hook or weight left behind in it would show."""
    again = run(client, graph)
    assert "mini" not in again.executed() and name in again.executed()
    assert same_pictures(again.pictures(), reference, exact)
