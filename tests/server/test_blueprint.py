"""The subgraph blueprint "Edit video (EI2)": the server offers it, and what is inside runs."""

from __future__ import annotations

import io
import json
import urllib.request

import pytest
from PIL import Image

from .graphs import EDIT_PROMPT, ROOT, SOURCE_PROMPT, Graph, node

pytestmark = pytest.mark.server

NAME = "Edit video (EI2)"
FIELDS = ("STRING", "INT", "FLOAT", "BOOLEAN", "COMBO")  # types of inputs that have one
OUTSIDE = -10  # the id of a subgraph's own inputs in its links


@pytest.fixture(scope="module")
def blueprint(server) -> dict:
    """As the server gives it."""
    ask = lambda path: json.load(urllib.request.urlopen(server.url + path, timeout=30))
    offered = {key: entry for key, entry in ask("/global_subgraphs").items() if entry["name"] == NAME}
    assert [entry["info"]["node_pack"] for entry in offered.values()] == ["custom_nodes.EI2"]
    return json.loads(ask(f"/global_subgraphs/{next(iter(offered))}")["data"])


def flattened(blueprint: dict, given: dict[str, object]) -> Graph:
    """What is inside, in API format, its nodes under their numbers. `given`: what the subgraph's inputs get."""
    inside = blueprint["definitions"]["subgraphs"][0]
    links = {link["id"]: link for link in inside["links"]}
    graph = {}
    for one in inside["nodes"]:
        values, inputs = iter(one["widgets_values"]), {}
        for slot in one["inputs"]:
            kept = [next(values)] if "widget" in slot else []
            link = links.get(slot["link"])
            if link is not None and link["origin_id"] == OUTSIDE:
                inputs[slot["name"]] = given[inside["inputs"][link["origin_slot"]]["name"]]
            elif link is not None:
                inputs[slot["name"]] = (str(link["origin_id"]), link["origin_slot"])
            elif kept:
                inputs[slot["name"]] = kept[0]
        assert next(values, None) is None, f"{one['type']} has more values than inputs"
        graph[str(one["id"])] = node(one["type"], **inputs)
    return graph


def test_is_one_subgraph_node(blueprint):
    """What the editor asks of a blueprint; its file is plain ASCII, since ComfyUI reads it in the system's encoding."""
    (outer,) = blueprint["nodes"]
    (inside,) = blueprint["definitions"]["subgraphs"]
    assert outer["type"] == inside["id"]
    # Those with a field of their own are left to the editor, whose previews would show "undefined" as their values.
    sockets = [slot["name"] for slot in inside["inputs"] if slot["type"] not in FIELDS]
    assert [slot["name"] for slot in outer["inputs"]] == sockets == ["images", "model", "clip", "vae"]
    assert [slot["name"] for slot in outer["outputs"]] == [slot["name"] for slot in inside["outputs"]]
    assert (ROOT / "subgraphs" / f"{NAME}.json").read_bytes().isascii()


def test_runs(client, blueprint):
    given = {
        "images": ("video", 0),
        "model": ("mini", 0),
        "clip": ("mini", 1),
        "vae": ("mini", 2),
        "source_prompt": SOURCE_PROMPT,
        "edit_prompt": EDIT_PROMPT,
        "tune_steps": 2,
        "learning_rate": 1e-3,
        "invert_steps": 2,
        "cfg": 2.0,
    }
    video = dict(video="short.mp4", width=64, height=64, fit="crop", start_frame=0, frame_stride=1, max_frames=4)
    graph = flattened(blueprint, given) | {"video": node("EI2_LoadVideo", **video), "mini": node("EI2_LoadMini")}
    inside = blueprint["definitions"]["subgraphs"][0]
    links = {link["id"]: link for link in inside["links"]}
    for slot in inside["outputs"]:
        link = links[slot["linkIds"][0]]
        images = (str(link["origin_id"]), link["origin_slot"])
        graph[slot["name"]] = node("SaveImage", images=images, filename_prefix=f"blueprint_{slot['name']}")
    outputs = client.run(graph)
    assert {slot["name"]: len(outputs[slot["name"]]["images"]) for slot in inside["outputs"]} == {
        "edit": 4,
        "reconstruction": 4,
        "loss_plot": 1,
    }
    edit, reconstruction = (client.view(outputs[name]["images"][0]) for name in ("edit", "reconstruction"))
    assert Image.open(io.BytesIO(edit)).size == (64, 64)
    assert edit != reconstruction
