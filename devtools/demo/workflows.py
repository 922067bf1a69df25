"""The bundled workflows whose edit is measured: the names of their videos, and the files of a run."""

from __future__ import annotations

import json

from batch.client import ClientError

from ..environment import ROOT

FOLDER = ROOT / "workflows" / "api"
QUICKSTART = "quickstart_full"
VIDEOS = ("comparison", "reconstruction", "edit")  # what they save
CLIPS = ("source", "reconstruction", "edit")  # what is measured
FRAMES = "frames_"  # prefix of a file name: single frames


def read(workflow: str) -> dict:
    """A bundled workflow in API format."""
    return json.loads((FOLDER / f"{workflow}.json").read_text(encoding="utf-8"))


def prefix_of(workflow: str) -> str:
    """The prefix of its videos' names."""
    return "" if workflow == QUICKSTART else f"{workflow}_"


def shows_the_edit(prompt: dict, workflow: str) -> bool:
    """Whether the workflow saves its edit of the bundled clip and the reconstruction."""
    saved = {entry["inputs"].get("filename_prefix") for entry in prompt.values()}
    return {f"EI2/{prefix_of(workflow)}{name}" for name in VIDEOS} <= saved


def with_frames(prompt: dict, workflow: str) -> dict:
    """The workflow, extended to save the frames of `CLIPS` as PNG: measurements need the pixels before compression."""
    pictures = {}
    for node, entry in prompt.items():
        if entry["class_type"] == "SaveVideo":
            name = entry["inputs"]["filename_prefix"].removeprefix(f"EI2/{prefix_of(workflow)}")
            pictures[name] = prompt[entry["inputs"]["video"][0]]["inputs"]["images"]
        elif entry["class_type"] == "EI2_LoadVideo":
            pictures["source"] = [node, 0]
    savers = {
        f"frames_of_{name}": {
            "class_type": "SaveImage",
            "inputs": {"images": pictures[name], "filename_prefix": f"EI2/{FRAMES}{prefix_of(workflow)}{name}"},
            "_meta": {"title": f"Save the frames: {name}"},
        }
        for name in CLIPS
    }
    return {**prompt, **savers}


def files_of(prompt: dict, outputs: dict, prefix: str) -> list[dict]:
    """The files written by the workflow's node with that `filename_prefix`, in order. Raises `ClientError`."""
    for node, entry in prompt.items():
        if entry["inputs"].get("filename_prefix") == prefix and node in outputs:
            return outputs[node]["images"]
    raise ClientError(f"The run wrote no files called {prefix}: the workflow needs a saving node with that prefix.")
