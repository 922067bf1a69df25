"""The bundled workflows that make the quickstart's edit: the names of their videos, and the files of a run."""

from __future__ import annotations

import json

from batch.client import ClientError

from ..environment import ROOT

FOLDER = ROOT / "workflows" / "api"
QUICKSTART = "quickstart_full"
CLIPS = ("source", "reconstruction", "edit")
FRAMES = "frames_"  # prefix of a video's file name: its single frames


def read(workflow: str) -> dict:
    """A bundled workflow in API format."""
    return json.loads((FOLDER / f"{workflow}.json").read_text(encoding="utf-8"))


def prefix_of(workflow: str) -> str:
    """The prefix of its videos' names."""
    return "" if workflow == QUICKSTART else f"{workflow}_"


def shows_the_edit(prompt: dict, workflow: str) -> bool:
    """Whether the workflow makes the quickstart's edit of its clip, and saves it with source and reconstruction."""
    saved = {entry["inputs"].get("filename_prefix") for entry in prompt.values()}
    return {f"EI2/{prefix_of(workflow)}{name}" for name in CLIPS} <= saved


def with_frames(prompt: dict) -> dict:
    """The workflow, extended to save each video's frames as PNG: measurements need the pixels before compression."""
    savers = {}
    for node, entry in prompt.items():
        if entry["class_type"] == "SaveVideo":
            name = entry["inputs"]["filename_prefix"].removeprefix("EI2/")
            images = prompt[entry["inputs"]["video"][0]]["inputs"]["images"]
            savers[f"{node}_frames"] = {
                "class_type": "SaveImage",
                "inputs": {"images": images, "filename_prefix": f"EI2/{FRAMES}{name}"},
                "_meta": {"title": f"Save the frames: {name}"},
            }
    return {**prompt, **savers}


def files_of(prompt: dict, outputs: dict, prefix: str) -> list[dict]:
    """The files written by the workflow's node with that `filename_prefix`, in order. Raises `ClientError`."""
    for node, entry in prompt.items():
        if entry["inputs"].get("filename_prefix") == prefix and node in outputs:
            return outputs[node]["images"]
    raise ClientError(f"The run wrote no files called {prefix}: the workflow needs a saving node with that prefix.")
