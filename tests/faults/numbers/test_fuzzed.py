"""Graphs with odd inputs through the real server's HTTP interface: each is refused by one sentence, or works; the
server goes on, and its models are as they were."""

from __future__ import annotations

import json
import time
from collections import Counter

import pytest
import requests

from batch.client import FINAL, Client
from devtools.environment import ROOT

from .fuzz import Try, spoilt

pytestmark = pytest.mark.server

SEED, CI, ALL = 16, 60, 600
LONGEST = 30.0  # seconds of a run before it is cancelled, as a user would; cancelling has to work
SOON = 20.0  # seconds until the cancelled run has ended, on a busy machine
KINDS = {"ValueError", "NonFiniteLoss", "OutOfMemory", "BadFile", "FileNotFoundError", "NotWritten", "VideoError"}
PYTHON = (
    "Traceback",
    "object has no attribute",
    "NoneType",
    "unexpected keyword",
    "positional argument",
    "list index",
    "division by zero",
    "must be str",
    "not supported between",
    "KeyError",
    "unhashable",
)


def outcome(client: Client, one: Try) -> str:
    """`refused`, `failed`, `worked` or `cancelled`; raises `AssertionError` for anything that no user should see."""
    answer = requests.post(
        f"{client.url}/prompt",
        data=json.dumps({"prompt": one.graph, "client_id": client.id}),  # NaN and infinity as Python writes them
        headers={"Content-Type": "application/json"},
        timeout=60,
    )
    if answer.status_code != 200:
        assert answer.status_code == 400, f"{one}: {answer.status_code} {answer.text[:300]}"
        check_refusal(one, answer.json())
        return "refused"
    run = answer.json()["prompt_id"]
    begin, asked = time.monotonic(), None
    while True:
        history = requests.get(f"{client.url}/history/{run}", timeout=60).json()
        if run in history:
            break
        now = time.monotonic()
        if asked is None and now - begin > LONGEST:
            asked = now
            client.interrupt(run)
        assert asked is None or now - asked < SOON, f"{one}: hangs"
        time.sleep(0.02)
    last = [data for kind, data in history[run]["status"]["messages"] if kind in FINAL][-1]
    if "exception_type" in last:
        check_failure(one, last)
        return "failed"
    return "worked" if asked is None else "cancelled"


def check_refusal(one: Try, body: dict) -> None:
    for found in (body.get("node_errors") or {}).values():
        for error in found["errors"]:
            ours = found["class_type"].startswith("EI2_") and error["type"] == "custom_validation_failed"
            assert not ours or is_plain(error["details"]), f"{one}: {error['details'][:300]}"
            # The host asks the output nodes of a graph for their inputs. A link from a node or an output that does not
            # exist raises there, before our code; only what raises in our code is a fault of ours.
            if error["type"] == "exception_during_validation" and found["class_type"].startswith("EI2_"):
                where = error["extra_info"]["traceback"]
                assert not any("custom_nodes" in line or str(ROOT) in line for line in where), f"{one}: {where[-1]}"


def check_failure(one: Try, error: dict) -> None:
    if not error["node_type"].startswith("EI2_"):
        return  # another's node, such as the host's own for text
    kind = error["exception_type"].rsplit(".", 1)[-1]
    message = error["exception_message"].strip()
    assert kind in KINDS, f"{one}: {kind}: {message[:300]}"
    assert is_plain(message), f"{one}: {kind}: {message[:300]}"


def is_plain(text: str) -> bool:
    return 10 < len(text) < 900 and not any(word in text for word in PYTHON) and "\n" not in text.strip()


@pytest.mark.filterwarnings("ignore")
def test_odd_inputs(client, server, graph, rounds):
    count, seen, wrong = rounds(CI, ALL), Counter(), []
    for one in spoilt(graph, count, SEED):
        try:
            seen[outcome(client, one)] += 1
        except AssertionError as error:
            wrong.append(str(error))
        server.check()
    print(f"{count} odd graphs: {dict(seen)}, {len(wrong)} wrong")
    assert not wrong, "\n".join(wrong[:20])
    assert seen["refused"] and seen["failed"] and seen["worked"]
    client.run(graph, timeout=300)  # the good one still runs
