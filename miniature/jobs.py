"""Clips of the miniature's world and a table of edits of them, for the batch run.

    python -m miniature.jobs FOLDER

writes six clips and `jobs.csv`, three edits each.
"""

from __future__ import annotations

import argparse
import csv
import math
from pathlib import Path

from .clips import changed, moving, write_clip
from .motion import Clip
from .scene import prompt, shape_view

FPS, FRAMES = 8, 8
# Each has its own shape, motion and appearance, and the edits are known, so a
# person can see whether a result is correct.
CLIPS = {
    "blue_square": (
        shape_view("square", "blue", "dotted", "white", radius=32.0),
        [(40.0, 80.0), (46.0, 24.0), (84.0, 30.0), (88.0, 84.0)],
    ),
    "red_circle": (
        shape_view("circle", "red", "plain", "yellow", radius=28.0),
        [(36.0, 40.0), (60.0, 90.0), (80.0, 90.0), (92.0, 40.0)],
    ),
    "green_triangle": (
        shape_view("triangle", "green", "striped", "white", radius=34.0),
        [(40.0, 64.0), (56.0, 40.0), (76.0, 88.0), (90.0, 64.0)],
    ),
    "yellow_star": (
        shape_view("star", "yellow", "plain", "black", radius=34.0),
        [(64.0, 36.0), (96.0, 50.0), (96.0, 80.0), (64.0, 92.0)],
    ),
    "purple_square": (
        shape_view("square", "purple", "plain", "white", radius=30.0),
        [(88.0, 40.0), (70.0, 40.0), (50.0, 88.0), (40.0, 88.0)],
    ),
    "orange_circle": (
        shape_view("circle", "orange", "dotted", "black", radius=30.0),
        [(40.0, 88.0), (64.0, 30.0), (64.0, 30.0), (88.0, 88.0)],
    ),
}
EDITS = {
    "blue_square": [{"color": "red"}, {"kind": "circle"}, {"kind": "circle", "color": "red"}],
    "red_circle": [{"color": "blue"}, {"kind": "square"}, {"background": "white"}],
    "green_triangle": [{"color": "red"}, {"kind": "circle"}, {"color": "blue"}],
    "yellow_star": [{"color": "green"}, {"kind": "circle"}, {"color": "red"}],
    "purple_square": [{"color": "green"}, {"kind": "triangle"}, {"background": "yellow"}],
    "orange_circle": [{"color": "blue"}, {"kind": "star"}, {"color": "green"}],
}


def clip_of(name: str, frames: int = FRAMES) -> Clip:
    """One of `CLIPS` in motion."""
    view, path = CLIPS[name]
    return moving(view, frames, path, turn=0.25 * math.pi)


def write_jobs(folder: Path, clips: list[str] | None = None, edits: int = 3, frames: int = FRAMES) -> Path:
    """Writes the clips (default: all) and the table; returns the table's path."""
    rows = []
    for name in clips or CLIPS:
        clip = clip_of(name, frames)
        write_clip(clip, folder / "clips" / f"{name}.mp4", FPS)
        for edit in EDITS[name][:edits]:
            rows.append([f"clips/{name}.mp4", prompt(clip[0]), prompt(changed(clip, **edit)[0])])
    table = folder / "jobs.csv"
    with open(table, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["clip", "source_prompt", "edit_prompt"], *rows])
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description="Render clips and a table of edits of them, for the batch run.")
    parser.add_argument("folder", type=Path)
    table = write_jobs(parser.parse_args().folder)
    print(f"{len(CLIPS)} clips and {table}")


if __name__ == "__main__":
    main()
