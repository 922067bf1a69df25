"""A hundred edits in one server: weights the same to the last byte, memory flat. Two people at once, who interrupt."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from random import Random

import pytest
from safetensors import safe_open

from batch.client import Client, Interrupted

from ...server.graphs import changed, edit_graph, node, run, same_pictures

pytestmark = pytest.mark.server

SHAPES, COLORS = ("circle", "star", "heart", "ring"), ("red", "green", "pink", "black")
SETTLED = 20  # edits until the allocators and caches have their size
GROWTH = 60e6  # bytes that may come on top of it over the rest: holes in the heap, no edits kept


def weights(server, client, name: str) -> dict[str, bytes]:
    """The model's weights, as the host's own node saves them."""
    graph = {
        "mini": node("EI2_LoadMini"),
        "save": node("ModelSave", model=("mini", 0), filename_prefix=f"faults/{name}"),
    }
    run(client, graph)
    (path,) = Path(server.base).rglob(f"{name}_*.safetensors")
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key).numpy().tobytes() for key in file.keys()}


def resident(server) -> int:
    """Bytes of main memory that the server takes."""
    return int(Path(f"/proc/{server._process.pid}/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_edits_leave_nothing_behind(client, server, rounds):
    count, random = rounds(4, 100), Random(0)
    before, sizes = weights(server, client, "before"), []
    graph = edit_graph(tune_steps=3, invert_steps=3, cfg=4.0)
    for i in range(count):
        words = f"a {random.choice(COLORS)} {random.choice(SHAPES)} on a dotted white background"
        changes = {"edit_prompt.text": words, "edit.cfg": 1.5 + i / 20}
        if i % 10 == 5:
            changes["tune.seed"] = i  # a new tune, and with it everything behind
        run(client, changed(graph, changes))
        sizes.append(resident(server))
    print(f"{count} edits: {sizes[0] / 1e6:.0f} MB after the first, {sizes[-1] / 1e6:.0f} MB after the last")
    assert weights(server, client, "after") == before
    if count > SETTLED:
        assert sizes[-1] - sizes[SETTLED] < GROWTH


def test_two_clients_that_interrupt(client, server, rounds):
    """Each cancels some runs of its own at random moments; no run of the other's is touched, and what ends is right."""
    tries, problems = rounds(3, 15), []
    graphs = [edit_graph(tune_steps=8, invert_steps=4, source_prompt=text) for text in ("a red square", "a blue star")]
    expected = [run(client, graph).pictures() for graph in graphs]

    def person(number: int) -> None:
        random = Random(number)
        with Client(server.url) as own:
            for i in range(tries):
                graph = changed(graphs[number], {"tune.seed": i % 2 * (i + 1)})  # every second run is the expected one
                cancel, submitted = i % 2 == 1, own.submit(graph)
                timer = threading.Timer(random.uniform(0.0, 1.5), own.interrupt, [submitted])
                if cancel:
                    timer.start()
                try:
                    outputs = own.wait(submitted, timeout=300)
                    again = run(own, graph).pictures() if "save" in outputs and not cancel else expected[number]
                    if not same_pictures(again, expected[number], True):
                        problems.append(f"client {number}, run {i}: other pictures")
                except Interrupted:
                    if not cancel:
                        problems.append(f"client {number}, run {i}: the other's interrupt hit it")
                finally:
                    timer.cancel()

    people = [threading.Thread(target=person, args=[number]) for number in (0, 1)]
    for one in people:
        one.start()
    for one in people:
        one.join(1200)
    server.check()
    assert not any(one.is_alive() for one in people), "hangs"
    assert not problems, problems
