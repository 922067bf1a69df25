"""Copies of the bundled workflows that run in seconds, on the miniature: to see what nodes show after a run.

The graph stays as it is: the checkpoint loader becomes the miniature's, a ControlNet a small one, clips and steps few.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

from tests.small_control_net import CONTROL_NET, provide_control_net

from .editor import BrowserError, Editor

CHECKPOINT, MINIATURE = "CheckpointLoaderSimple", "EI2_LoadMini"
CONTROL_NETS = "ControlNetLoader"
SIZE, FRAMES, WINDOWED_FRAMES = 128, 4, 12
SHORT = {
    "EI2_LoadVideo": {"width": SIZE, "height": SIZE, "max_frames": FRAMES},
    "EI2_OneShotTune": {"steps": 2, "learning_rate": 1e-3},
    "EI2_Invert": {"steps": 2, "null_inner_steps": 1},
}
SHORT_SUBGRAPH = {"tune_steps": 2, "invert_steps": 2}  # of a node that stands for the whole edit


def provide(server) -> None:
    """What the short copies need, on a server before its editor is opened."""
    provide_control_net(server.base)


def run_short(editor: Editor, path: Path, folder: Path, timeout: float = 300) -> None:
    """Opens a short copy of a workflow in the editor's format, kept in `folder`, and runs it to its end; before it, the
    one that keeps the tune that it loads. Raises `BrowserError` where it fails."""
    workflow = json.loads(path.read_text(encoding="utf-8"))
    if any(node["type"] == "EI2_LoadTune" for node in workflow["nodes"]):
        run_short(editor, path.with_name("learn_and_keep.json"), folder, timeout)
    file = folder / f"{path.stem}_short.json"  # of one name, the editor takes two for one and mixes what they show
    file.write_text(json.dumps(shortened(workflow)), encoding="utf-8")
    editor.load(file)
    editor.page.keyboard.press("Escape")  # should the editor have a message about a file that it did not know
    if (outcome := editor.run(timeout)) != "execution_success":
        raise BrowserError(f"The run has ended with {outcome}: {editor.errors}")
    editor.page.wait_for_timeout(2500)  # pictures and videos are being loaded


def shortened(workflow: dict) -> dict:
    """A copy of a workflow in the editor's format, to be opened in the editor."""
    workflow = copy.deepcopy(workflow)
    tunes = [node for node in workflow["nodes"] if node["type"] == "EI2_OneShotTune"]
    windowed = any(node["widgets_values"][widgets(node).index("window_frames")] for node in tunes)
    subgraphs = [subgraph["id"] for subgraph in workflow.get("definitions", {}).get("subgraphs", [])]
    for node in workflow["nodes"]:
        if node["type"] == CHECKPOINT:
            node["type"], node["inputs"], node["widgets_values"] = MINIATURE, [], []
            node["properties"] = {"Node name for S&R": MINIATURE}
        if node["type"] == CONTROL_NETS:
            node["widgets_values"], node["properties"] = [CONTROL_NET], {"Node name for S&R": CONTROL_NETS}
        values = SHORT_SUBGRAPH if node["type"] in subgraphs else SHORT.get(node["type"], {})
        if windowed and "max_frames" in values:
            values = values | {"max_frames": WINDOWED_FRAMES}
        shorten(workflow, node, values)
    return workflow


def widgets(node: dict) -> list[str]:
    """The names of a node's widgets, in the order of its values."""
    return [entry["name"] for entry in node.get("inputs", []) if "widget" in entry]


def shorten(workflow: dict, node: dict, values: dict) -> None:
    """Sets a node's inputs, and takes off what is linked to them."""
    names = widgets(node)
    for entry in node.get("inputs", []):
        if entry["name"] in values and entry.get("link") is not None:
            remove_link(workflow, entry["link"])
            entry["link"] = None
    for name, value in values.items():
        node["widgets_values"][names.index(name)] = value


def remove_link(workflow: dict, link: int) -> None:
    workflow["links"] = [entry for entry in workflow["links"] if entry[0] != link]
    for node in workflow["nodes"]:
        for output in node.get("outputs", []):
            output["links"] = [entry for entry in output.get("links") or [] if entry != link]
