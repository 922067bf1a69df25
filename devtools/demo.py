"""Edits the bundled clip on a real ComfyUI server, shows how far it is, and measures the result. Several workflows run
one after another, and the animation shows their edits side by side.

The clip is rendered, so the right result of the edit is known pixel by pixel ("truth").
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import torch

from miniature.clips import QUICKSTART_FPS, quickstart_truth
from miniature.world import render

from .animation import animate
from .client import Client, ClientError
from .environment import ROOT, SetupError, say
from .progress import Progress
from .results import contact_sheet, decode, measure
from .server import CLIP, Server, ServerError

WORKFLOWS = ROOT / "workflows" / "api"
QUICKSTART = "quickstart"
CLIPS = ("source", "reconstruction", "edit")
ANIMATION, RIGHT = "animation.webp", "right result"
FRAMES = "frames_"  # before a video's file name: its single frames


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "demo-output", help="folder for the results")
    known = sorted(file.stem for file in WORKFLOWS.glob("*.json") if shows_the_edit(read(file.stem), file.stem))
    parser.add_argument(
        "--workflow",
        choices=known,
        default=[QUICKSTART],
        nargs="+",
        metavar="NAME",
        help=f"one or more of {', '.join(known)}",
    )
    options = parser.parse_args()
    output = options.output.resolve()
    try:
        runs, chosen = {}, list(dict.fromkeys(options.workflow))
        for workflow in chosen:
            folder = output / workflow if len(chosen) > 1 else output
            report, runs[workflow] = demonstrate(folder, workflow)
            summarize(report, folder)
        animate(side_by_side(runs), output / ANIMATION, QUICKSTART_FPS)
    except KeyboardInterrupt:
        say("\nStopped.")
        return 130
    except (ClientError, ServerError, SetupError, TimeoutError, FileNotFoundError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    say(f"Source and edit side by side: {output / ANIMATION}")
    return 0


def demonstrate(output: Path, workflow: str) -> tuple[dict, dict[str, torch.Tensor]]:
    """Runs a bundled workflow and fills the folder `output`; returns the report and the clips, each `f 3 h w` in
    0..1."""
    prompt, saved_as = with_frames(read(workflow)), prefix_of(workflow)
    start = time.monotonic()
    say("Starting ComfyUI ...")
    with Server() as server, Client(server.url) as client:
        ready = time.monotonic()
        say(f"  it answers after {ready - start:.1f} s\nEditing {CLIP.name}")
        client.upload(CLIP)
        progress = Progress(prompt)
        try:
            outputs = client.run(prompt, progress)
        except ClientError as error:
            server.check()
            raise ClientError(f"{error}{server.tail()}") from error
        finished = time.monotonic()
        machine = describe(client.system_stats())
        output.mkdir(parents=True, exist_ok=True)
        clips = {}
        for name in CLIPS:
            pictures = files_of(prompt, outputs, f"EI2/{FRAMES}{saved_as}{name}")
            clips[name] = decode([client.view(picture) for picture in pictures])
            video = files_of(prompt, outputs, f"EI2/{saved_as}{name}")[0]
            (output / f"{name}.mp4").write_bytes(client.view(video))

    scenes = quickstart_truth()
    clips["truth"] = render(scenes)
    contact_sheet(clips, output / "contact_sheet.png")
    stages = {"start ComfyUI": ready - start, **progress.stages(), "whole run": finished - ready}
    command = "python3 dev.py demo" + (f" --workflow {workflow}" if saved_as else "")
    report = {"command": command, "machine": machine, **measure(clips, scenes)}
    report["seconds"] = {name: round(seconds, 2) for name, seconds in stages.items()}
    report["seconds_by_node"] = {
        f"{node}: {progress.title(node)}": round(seconds, 2) for node, seconds in progress.seconds.items()
    }
    text = json.dumps(report, indent=2, ensure_ascii=False)
    (output / "report.json").write_text(text + "\n", encoding="utf-8")
    return report, clips


def side_by_side(runs: dict[str, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The columns of the animation: the source, each workflow's edit under its name, the right result."""
    first = next(iter(runs.values()))
    return {"source": first["source"], **{name: clips["edit"] for name, clips in runs.items()}, RIGHT: first["truth"]}


def read(workflow: str) -> dict:
    """A bundled workflow in API format."""
    return json.loads((WORKFLOWS / f"{workflow}.json").read_text(encoding="utf-8"))


def prefix_of(workflow: str) -> str:
    """Before the names of its videos."""
    return "" if workflow == QUICKSTART else f"{workflow}_"


def shows_the_edit(prompt: dict, workflow: str) -> bool:
    """Whether the workflow makes the quickstart's edit of its clip and saves it beside source and reconstruction."""
    saved = {entry["inputs"].get("filename_prefix") for entry in prompt.values()}
    return {f"EI2/{prefix_of(workflow)}{name}" for name in CLIPS} <= saved


def describe(stats: dict) -> str:
    """The machine in a line, from the server's own account of it."""
    system, device = stats["system"], stats["devices"][0]
    return (
        f"{device['name']}, {os.cpu_count()} CPU cores, ComfyUI {system['comfyui_version']}, "
        f"torch {system['pytorch_version']}"
    )


def with_frames(prompt: dict) -> dict:
    """The workflow, also saving each video's frames as PNG: measures want the pixels before compression."""
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


def summarize(report: dict, output: Path) -> None:
    """Prints the report for a person."""
    frames = report["frames"]
    say(f"\nReconstruction: {report['reconstruction_psnr_db']:.1f} dB PSNR against the source")
    say(
        f"Edit: {report['edit_psnr_against_truth_db']:.1f} dB PSNR against the right result "
        f"(the unedited clip has {report['unedited_source_psnr_against_truth_db']:.1f} dB)"
    )
    say(f"Wanted: {report['wanted']}. The judge sees:")
    for first, last, words in spans(report["judge_sees"]["edit"]):
        where = f"frame {first}" if first == last else f"frames {first} to {last}"
        say(f"  {where}: {words}")
    right = ", ".join(f"{name} {count}" for name, count in report["frames_right_by_attribute"].items())
    say(f"Frames with everything right: {report['frames_with_everything_right']} of {frames} ({right})")
    say("Seconds: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in report["seconds"].items()))
    say(f"Results, beginning with contact_sheet.png, are in {output}")


def spans(words: list[str]) -> list[tuple[int, int, str]]:
    """Equal neighbours joined: first frame, last frame (from 1), text."""
    found: list[tuple[int, int, str]] = []
    for number, text in enumerate(words, start=1):
        if found and found[-1][2] == text:
            found[-1] = (found[-1][0], number, text)
        else:
            found.append((number, number, text))
    return found


if __name__ == "__main__":
    sys.exit(main())
