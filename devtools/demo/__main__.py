"""Edits the bundled clip on a real ComfyUI server, shows its progress, and measures the result. Several workflows run
one after another, and the animation shows their edits side by side.

The clip is rendered, so the correct result of the edit is known for every pixel ("truth").
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import torch

from batch.client import Client, ClientError
from miniature.clips import FPS, bundled_truth
from miniature.scene import render
from miniature.sheets import contact_sheet

from ..environment import ROOT, SetupError, say
from ..server import Server, ServerError
from .animation import animate
from .progress import Progress
from .results import decode, measure, summarize
from .workflows import CLIPS, FOLDER, FRAMES, QUICKSTART, VIDEOS, files_of, prefix_of, read, shows_the_edit, with_frames

ANIMATION, RIGHT = "animation.webp", "right result"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "demo-output", help="folder for the results")
    choices = sorted(file.stem for file in FOLDER.glob("*.json") if shows_the_edit(read(file.stem), file.stem))
    text = f"one or more of {', '.join(choices)}"
    parser.add_argument("--workflow", choices=choices, default=[QUICKSTART], nargs="+", metavar="NAME", help=text)
    options = parser.parse_args()
    output = options.output.resolve()
    try:
        runs, workflows = {}, list(dict.fromkeys(options.workflow))
        for workflow in workflows:
            folder = output / workflow if len(workflows) > 1 else output
            report, runs[workflow] = demonstrate(folder, workflow)
            summarize(report, folder)
        animate(side_by_side(runs), output / ANIMATION, FPS)
    except KeyboardInterrupt:
        say("\nStopped.")
        return 130
    except (ClientError, ServerError, SetupError, OSError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    say(f"Source and edit side by side: {output / ANIMATION}")
    return 0


def demonstrate(output: Path, workflow: str) -> tuple[dict, dict[str, torch.Tensor]]:
    """Runs a bundled workflow and fills the folder `output`; returns the report and the clips, each `f 3 h w` in
    0..1."""
    prompt, saved_as = with_frames(read(workflow), workflow), prefix_of(workflow)
    output.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    say("Starting ComfyUI ...")
    with Server() as server, Client(server.url) as client:
        ready = time.monotonic()
        say(f"  it answers after {ready - start:.1f} s\nRunning {workflow}")
        progress = Progress(prompt)
        try:
            outputs = client.run(prompt, progress)
        except ClientError as error:
            server.check()
            raise ClientError(f"{error}{server.tail()}") from error
        finished = time.monotonic()
        machine = describe(client.system_stats())
        clips = {}
        for name in CLIPS:
            pictures = files_of(prompt, outputs, f"EI2/{FRAMES}{saved_as}{name}")
            clips[name] = decode([client.view(picture) for picture in pictures])
        for name in VIDEOS:
            video = files_of(prompt, outputs, f"EI2/{saved_as}{name}")[0]
            (output / f"{name}.mp4").write_bytes(client.view(video))

    views = bundled_truth(workflow)
    clips["truth"] = render(views)
    contact_sheet(clips, output / "contact_sheet.png")
    stages = {"start ComfyUI": ready - start, **progress.stages(), "whole run": finished - ready}
    command = "python3 dev.py demo" + (f" --workflow {workflow}" if saved_as else "")
    report = {"command": command, "machine": machine, **measure(clips, views)}
    report["seconds"] = {name: round(seconds, 2) for name, seconds in stages.items()}
    report["seconds_by_node"] = {
        f"{node}: {progress.title(node)}": round(seconds, 2) for node, seconds in progress.seconds.items()
    }
    text = json.dumps(report, indent=2, ensure_ascii=False)
    (output / "report.json").write_text(text + "\n", encoding="utf-8")
    return report, clips


def side_by_side(runs: dict[str, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The columns of the animation: the source, each workflow's edit under its name, and the correct result."""
    first = next(iter(runs.values()))
    return {"source": first["source"], **{name: clips["edit"] for name, clips in runs.items()}, RIGHT: first["truth"]}


def describe(stats: dict) -> str:
    """A one-line description of the machine, from the server's statistics."""
    system, device = stats["system"], stats["devices"][0]
    return (
        f"{device['name']}, {os.cpu_count()} CPU cores, ComfyUI {system['comfyui_version']}, "
        f"torch {system['pytorch_version']}"
    )


if __name__ == "__main__":
    sys.exit(main())
