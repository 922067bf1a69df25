"""A user's path from an empty page to a playing video: mouse and keys only, the page is asked for nothing but state."""

from __future__ import annotations

import re
import time

import pytest

from .editor import Editor
from .hand import Hand

SIZE = (1920, 1080)
SCALE = 0.65  # of the graph, so that all of it is seen
SOURCE, EDIT = "a blue square on a dotted white background", "a red circle on a dotted white background"
FRAMES, TUNE_STEPS, INVERT_STEPS = 6, 20, 8
RUN_SECONDS = 300
# What is searched for, and where its upper left corner goes in the window.
NODES = {
    "video": ("EI2 Load Video", 110, 170),
    "mini": ("EI2 Load Miniature Model", 110, 640),
    "source": ("CLIP Text Encode (Prompt)", 350, 170),
    "edit": ("CLIP Text Encode (Prompt)", 350, 360),
    "encode": ("VAE Encode", 350, 680),
    "tune": ("EI2 One-Shot Tune", 670, 170),
    "invert": ("EI2 Invert (DDIM Inversion)", 910, 170),
    "sample": ("EI2 Edit Sample (Vid2Vid)", 1150, 170),
    "decode": ("VAE Decode", 1150, 400),
    "create": ("Create Video", 1150, 520),
    "save": ("Save Video", 1400, 400),
}
DRAGGED = ("inflate", "EI2 Inflate UNet", 350, 560)  # out of the sidebar's library
BESIDE_LIBRARY = (700, 600)  # it lies over that place: the node goes here first
LINKS = (
    ("mini", "model", "inflate", "model"),
    ("mini", "clip", "source", "clip"),
    ("mini", "clip", "edit", "clip"),
    ("mini", "vae", "encode", "vae"),
    ("mini", "vae", "decode", "vae"),
    ("video", "images", "encode", "pixels"),
    ("video", "fps", "create", "fps"),
    ("inflate", "model", "tune", "model"),
    ("encode", "LATENT", "tune", "latent"),
    ("encode", "LATENT", "invert", "latent"),
    ("source", "CONDITIONING", "tune", "positive"),
    ("source", "CONDITIONING", "invert", "positive"),
    ("source", "CONDITIONING", "sample", "negative"),
    ("edit", "CONDITIONING", "sample", "positive"),
    ("tune", "model", "invert", "model"),
    ("tune", "model", "sample", "model"),
    ("invert", "inversion", "sample", "inversion"),
    ("sample", "latent", "decode", "samples"),
    ("decode", "IMAGE", "create", "images"),
    ("create", "VIDEO", "save", "video"),
)


def test_from_an_empty_page_to_a_playing_video(server, picture):
    with Editor(server.url, SIZE) as editor:
        hand = Hand(editor)
        nodes = place_nodes(hand, picture)
        connect_and_fill_in(hand, nodes, picture)
        run_and_watch(hand, nodes, picture)
        play(hand, nodes, picture)
        assert [error for error in editor.errors if "EI2" in error] == []


def place_nodes(hand, picture) -> dict:
    """From the search, one from the sidebar's library; returns their ids."""
    nodes = {}
    hand.new_workflow()
    hand.zoom_out(SCALE, SIZE[0] / 2, SIZE[1] / 2)
    hand.search("EI2", *NODES["video"][1:])
    hand.page.get_by_role("option").first.wait_for()
    picture(hand.editor, "own-1-search")
    hand.leave_search()
    for key, (name, x, y) in NODES.items():
        nodes[key] = hand.add(name, x, y)
    key, name, x, y = DRAGGED
    nodes[key] = hand.drag_from_library(name, *BESIDE_LIBRARY, lambda: picture(hand.editor, "own-2-library"))
    hand.move(nodes[key], x, y)
    picture(hand.editor, "own-3-nodes")
    types = {str(node["id"]): node["type"] for node in hand.editor.serialize()["nodes"]}
    assert types[str(nodes["inflate"])] == "EI2_InflateUNet" and types[str(nodes["tune"])] == "EI2_OneShotTune"
    assert hand.editor.missing_nodes() == []
    return nodes


def connect_and_fill_in(hand, nodes, picture):
    for origin, output, target, name in LINKS:
        hand.connect(nodes[origin], output, nodes[target], name)
    hand.write(nodes["source"], "text", SOURCE)
    hand.write(nodes["edit"], "text", EDIT)
    for key, name, value in (
        ("video", "width", 128),
        ("video", "height", 128),
        ("video", "max_frames", FRAMES),
        ("tune", "steps", TUNE_STEPS),
        ("tune", "learning_rate", 0.001),
        ("invert", "steps", INVERT_STEPS),
        ("sample", "cfg", 2),
    ):
        hand.set_number(nodes[key], name, value)
    picture(hand.editor, "own-4-graph")
    prompt = hand.editor.prompt()
    inputs = {key: prompt[str(node)]["inputs"] for key, node in nodes.items()}
    assert (inputs["source"]["text"], inputs["edit"]["text"]) == (SOURCE, EDIT)
    assert (inputs["tune"]["steps"], inputs["tune"]["learning_rate"]) == (TUNE_STEPS, 0.001)
    assert (inputs["video"]["max_frames"], inputs["video"]["width"], inputs["video"]["height"]) == (FRAMES, 128, 128)
    assert inputs["sample"]["inversion"] == [str(nodes["invert"]), 0]


def run_and_watch(hand, nodes, picture):
    """Run is pressed; the progress is seen on the tuning node and in the page's title."""
    hand.editor.listen()
    hand.press("Run")
    seen, titles, end = set(), set(), time.monotonic() + RUN_SECONDS
    while (outcome := hand.editor.outcome()) is None:
        assert time.monotonic() < end, "the run does not end"
        progress = hand.page.evaluate("id => app.graph.getNodeById(id).progress ?? 0", nodes["tune"])
        titles.update(re.findall(r"\[(\d+)%\] EI2_OneShotTune", hand.page.title()))
        if progress >= 0.4 and max(seen, default=0) < 0.4:
            picture(hand.editor, "own-5-progress", wait=0)
        seen.add(progress)
        hand.page.wait_for_timeout(150)
    assert outcome == "execution_success", hand.editor.errors
    between = [value for value in seen if 0 < value < 1]
    assert len(between) >= 3, seen
    assert len(titles) >= 3, titles


def play(hand, nodes, picture):
    """A click on the edited video starts it."""
    find = """id => {
        const widget = app.graph.getNodeById(id).widgets.find(w => w.name === 'video-preview')
        const video = widget?.element.querySelector('video')
        return video && { width: video.videoWidth, time: video.currentTime, length: video.duration, error: video.error }
    }"""
    hand.page.wait_for_function(f"id => ({find})(id)?.width", arg=nodes["save"], timeout=20_000)
    picture(hand.editor, "own-6-video")
    hand.play(nodes["save"])
    times = set()
    for _ in range(20):
        hand.page.wait_for_timeout(100)
        video = hand.page.evaluate(find, nodes["save"])
        times.add(video["time"])
    picture(hand.editor, "own-7-playing", wait=0)
    assert video["error"] is None and video["width"] == 128
    assert video["length"] == pytest.approx(FRAMES / 8, abs=0.01)
    assert len(times) >= 3 and max(times) <= video["length"], times
