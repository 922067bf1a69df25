"""What the user is told before a long run that is likely to be in vain."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import aiohttp
import pytest

from batch.client import FINAL

from .graphs import Graph, changed, edit_graph, node, run

pytestmark = pytest.mark.server

OWN_WORLD = "The miniature model knows only its own drawn world"
TEXT = 3  # the host's number for texts of nodes
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


def test_a_nodes_text_reaches_only_who_queued_the_job(server, client, forget):
    """Not the windows of others, whose graphs may have a node of the same number."""
    forget()
    graph = quick(source_prompt="a dragon")
    texts = asyncio.run(texts_received(server.url, graph, ["mine", "others"]))
    assert any(OWN_WORLD in text for text in texts["mine"]) and not texts["others"], texts


async def texts_received(url: str, graph: Graph, ids: list[str]) -> dict[str, list[str]]:
    """What windows of these ids get of a job that the first one queues."""
    texts = {one: [] for one in ids}

    async def listen(one: str, socket) -> None:
        async for message in socket:
            if message.type is aiohttp.WSMsgType.BINARY and int.from_bytes(message.data[:4], "big") == TEXT:
                texts[one].append(message.data[4:].decode("utf-8", "replace"))
            elif message.type is aiohttp.WSMsgType.TEXT and one == ids[0]:
                content = message.json()
                if content["type"] in FINAL and content["data"].get("prompt_id") == job:
                    return

    async with aiohttp.ClientSession() as session, AsyncExitStack() as opened:
        address = f"{url}/ws?clientId="
        mine, *others = [await opened.enter_async_context(session.ws_connect(address + one)) for one in ids]
        waiting = [asyncio.create_task(listen(one, socket)) for one, socket in zip(ids[1:], others)]
        async with session.post(f"{url}/prompt", json={"prompt": graph, "client_id": ids[0]}) as answer:
            job = (await answer.json())["prompt_id"]
        await listen(ids[0], mine)
        await asyncio.sleep(1)  # for what would come to the others
        for task in waiting:
            task.cancel()
    return texts


def test_the_miniature_says_what_it_knows(client, forget):
    forget()
    shown = run(client, quick()).outputs["mini"]["text"][0]
    assert "knows only drawn things in drawn places" in shown and "real film" in shown
