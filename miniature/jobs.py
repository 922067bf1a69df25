"""Clips of the miniature's world and a table of edits of them, for the batch run.

    python -m miniature.jobs FOLDER

writes six clips and `jobs.csv`, three edits each.
"""

from __future__ import annotations

import argparse
import csv
import math
from pathlib import Path

from .clips import moving, write_clip
from .world import Scene, prompt

FPS, FRAMES = 8, 8
# Each has its own shape, motion and appearance, and the edits are known, so a
# person can see whether a result is correct.
CLIPS = {
    "blue_square": (
        Scene(shape="square", color="blue", pattern="dotted", background="white", radius=32.0),
        [(40.0, 80.0), (46.0, 24.0), (84.0, 30.0), (88.0, 84.0)],
    ),
    "red_circle": (
        Scene(shape="circle", color="red", pattern="plain", background="yellow", radius=28.0),
        [(36.0, 40.0), (60.0, 90.0), (80.0, 90.0), (92.0, 40.0)],
    ),
    "green_triangle": (
        Scene(shape="triangle", color="green", pattern="striped", background="white", radius=34.0),
        [(40.0, 64.0), (56.0, 40.0), (76.0, 88.0), (90.0, 64.0)],
    ),
    "yellow_star": (
        Scene(shape="star", color="yellow", pattern="plain", background="black", radius=34.0),
        [(64.0, 36.0), (96.0, 50.0), (96.0, 80.0), (64.0, 92.0)],
    ),
    "purple_square": (
        Scene(shape="square", color="purple", pattern="plain", background="white", radius=30.0),
        [(88.0, 40.0), (70.0, 40.0), (50.0, 88.0), (40.0, 88.0)],
    ),
    "orange_circle": (
        Scene(shape="circle", color="orange", pattern="dotted", background="black", radius=30.0),
        [(40.0, 88.0), (64.0, 30.0), (64.0, 30.0), (88.0, 88.0)],
    ),
}
EDITS = {
    "blue_square": [{"color": "red"}, {"shape": "circle"}, {"shape": "circle", "color": "red"}],
    "red_circle": [{"color": "blue"}, {"shape": "square"}, {"background": "white"}],
    "green_triangle": [{"color": "red"}, {"shape": "circle"}, {"color": "blue"}],
    "yellow_star": [{"color": "green"}, {"shape": "circle"}, {"color": "red"}],
    "purple_square": [{"color": "green"}, {"shape": "triangle"}, {"background": "yellow"}],
    "orange_circle": [{"color": "blue"}, {"shape": "star"}, {"color": "green"}],
}


def write_jobs(folder: Path, clips: list[str] | None = None, edits: int = 3, frames: int = FRAMES) -> Path:
    """Writes the clips (default: all) and the table; returns the table's path."""
    rows = []
    for name in clips or CLIPS:
        scene, path = CLIPS[name]
        write_clip(moving(scene, frames, path, turn=0.25 * math.pi), folder / "clips" / f"{name}.mp4", FPS)
        for edit in EDITS[name][:edits]:
            rows.append([f"clips/{name}.mp4", prompt(scene), prompt(scene.edited(**edit))])
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
