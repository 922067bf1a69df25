"""Cancelling a run in each of the long nodes: it stops soon, and what runs next computes as if nothing had been."""

from __future__ import annotations

import time

import pytest

from devtools.client import Interrupted

from .graphs import edit_graph, run, same_pictures

pytestmark = pytest.mark.server

SOON = 5.0  # seconds; a step of this small model takes about a tenth
STEPS = {"tune": 25, "invert": 25, "edit": 25}  # enough that the request comes long before the end


@pytest.fixture(scope="module")
def graph():
    return edit_graph(tune_steps=STEPS["tune"], invert_steps=STEPS["invert"])  # the edit takes as many


@pytest.fixture(scope="module")
def reference(session_client, graph):
    """The result of a run that nobody cancels."""
    session_client.free()
    time.sleep(1)
    result = run(session_client, graph)
    assert {"tune", "invert", "edit"} <= result.executed()
    return result.pictures()


@pytest.mark.parametrize("name", ("tune", "invert", "edit"))
def test_cancel(client, forget, graph, reference, exact, name, record_property):
    forget()
    submitted = client.submit(graph)
    asked = done = total = None
    with pytest.raises(Interrupted) as interrupted:

        def interrupt(event) -> None:
            nonlocal asked, done, total
            state = event.progress().get(name)
            if state and asked is None and state[0] >= 2:
                asked, (done, total) = time.monotonic(), state
                client.interrupt(submitted)

        client.wait(submitted, interrupt, timeout=120)
    seconds = time.monotonic() - asked
    record_property("seconds_until_stopped", round(seconds, 3))
    print(f"{name}: asked at step {done:.0f} of {total:.0f}, stopped after {seconds:.2f} s")
    assert interrupted.value.node == name
    assert seconds < SOON
    assert total == STEPS[name] and done < total

    # The loaded model is the one the cancelled run used: a hook or weight left behind in it would show.
    again = run(client, graph)
    assert "mini" not in again.executed() and name in again.executed()
    assert same_pictures(again.pictures(), reference, exact)
