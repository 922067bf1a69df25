"""A tuning that is cancelled goes on from its snapshot, on the server: the edit is the unbroken run's."""

from __future__ import annotations

import pytest

from batch.client import Interrupted

from .graphs import changed, edit_graph, fail, run, same_pictures

pytestmark = pytest.mark.server

STEPS, EVERY, CANCEL_AT = 12, 3, 7


def test_cancel_and_resume(client, forget, server, exact):
    graph = edit_graph(size=72, tune_steps=STEPS, invert_steps=2)
    forget()
    expected = run(client, graph).pictures()
    forget()
    cancel(client, changed(graph, {"tune.snapshot_every": EVERY}))
    folder = server.base / "models" / "ei2_tunes" / "snapshots"
    (file,) = folder.iterdir()
    assert file.name.startswith("4f_72x72_seed0_")

    options = client.object_info("EI2_OneShotTune")["EI2_OneShotTune"]["input"]["optional"]["resume_from"][1]["options"]
    assert options == ["none", file.name]
    resumed = changed(graph, {"tune.snapshot_every": EVERY, "tune.resume_from": file.name})
    result = run(client, resumed)
    steps = [done for done, total in result.progress("tune") if total == STEPS and done]
    assert CANCEL_AT - EVERY < steps[0] <= CANCEL_AT + EVERY  # the server may have done a few more before it stopped
    assert same_pictures(result.pictures(), expected, exact)
    assert f"snapshots/{file.name}" in result.outputs["tune"]["text"][0]
    assert run(client, resumed).executed() == set()  # although the run itself has written the file anew

    failure = fail(client, changed(resumed, {"tune.seed": 1}))
    assert (failure.where, failure.node) == ("execution_error", "tune")
    assert "seed 0, but this tuning has 1" in failure.message
    failure = fail(client, changed(resumed, {"tune.resume_from": "gone.safetensors"}))
    assert (failure.where, failure.node) == ("node_errors", "tune") and "There is no snapshot" in failure.message


def cancel(client, graph) -> None:
    submitted = client.submit(graph)

    def interrupt(event) -> None:
        state = event.progress().get("tune")
        if state and state[0] >= CANCEL_AT:
            client.interrupt(submitted)

    with pytest.raises(Interrupted):
        client.wait(submitted, interrupt, timeout=120)
