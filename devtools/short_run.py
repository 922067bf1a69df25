"""Copies of the bundled workflows that run in seconds, on the miniature: to see what nodes show after a run.

The graph stays as it is: the checkpoint loader becomes the miniature's, clips and steps become few.
"""

from __future__ import annotations

import copy

CHECKPOINT, MINIATURE = "CheckpointLoaderSimple", "EI2_LoadMini"
WORDS = {"car": "square", "bus": "circle", "yellow": "blue"}  # the miniature knows few
SIZE, FRAMES, WINDOWED_FRAMES = 128, 4, 12
SHORT = {
    "EI2_LoadVideo": {"width": SIZE, "height": SIZE, "max_frames": FRAMES},
    "EI2_OneShotTune": {"steps": 2, "learning_rate": 1e-3},
    "EI2_Invert": {"steps": 2, "null_inner_steps": 1},
}


def shortened(workflow: dict) -> dict:
    """A copy of a workflow in the editor's format, to be opened in the editor."""
    workflow = copy.deepcopy(workflow)
    windowed = any(node["type"] == "EI2_OneShotTune" and node["widgets_values"][-1] for node in workflow["nodes"])
    for node in workflow["nodes"]:
        if node["type"] == CHECKPOINT:
            node["type"], node["inputs"], node["widgets_values"] = MINIATURE, [], []
            node["properties"] = {"Node name for S&R": MINIATURE}
        values = SHORT.get(node["type"], {})
        if windowed and "max_frames" in values:
            values = values | {"max_frames": WINDOWED_FRAMES}
        shorten(workflow, node, values)
    return workflow


def shorten(workflow: dict, node: dict, values: dict) -> None:
    """Sets a node's inputs, and takes off what is linked to them."""
    names = [entry["name"] for entry in node.get("inputs", []) if "widget" in entry]
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
            output["links"] = [one for one in output.get("links") or [] if one != link]
