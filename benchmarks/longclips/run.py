"""Long clips: the cost of editing in windows in quality, and its saving in memory.

Two rendered clips are tuned on in random windows. Each is inverted and edited twice in three modes: in context windows
that share coarse tokens of the whole clip, in the same windows without them, and with all frames at once. One clip is
also sampled with a prompt that leaves its appearance open, so that each window could choose its own.
"""

from __future__ import annotations

import json
import math
import sys
import time
from itertools import product
from pathlib import Path
from statistics import fmean

import torch

from benchmarks.bench import Bench, BenchClip
from benchmarks.drawing import titled_sheet
from benchmarks.editbench.clips import Clip, Edit, edit_of
from benchmarks.editbench.rows import values_of
from benchmarks.editbench.scores import judged, score
from benchmarks.editbench.work import rounded
from benchmarks.results import RESULTS, markdown_table, write_rows
from benchmarks.runner import command_parser, facts
from devtools.in_process import pack
from ei2.measures import psnr
from ei2.windows import static_windows
from miniature.places import Camera
from miniature.scene import object_mask, render, shape_view
from miniature.world import PERIOD

from .scores import LiveTensors, borders, color_errors, drift, seam_ratio, wander

TUNE_STEPS, LEARNING_RATE, DDIM_STEPS, CFG = 100, 1e-3, 12, 4.0
ONCE = "all at once"
MODES = ("whole-clip tokens", "windows alone", ONCE)
COLUMNS = {
    "success": "success",
    "agreement": "agreement",
    "preservation": "kept",
    "psnr": "PSNR, dB",
    "flicker": "flicker",
    "seam_ratio": "seams",
    "drift_object": "drift, object",
    "drift_background": "drift, background",
    "wander_object": "wander, object",
    "wander_background": "wander, background",
    "reconstruction_psnr": "reconstruction, dB",
}
COLORS = [name for name in COLUMNS if name.startswith(("drift", "wander"))]
OPEN_CLIP, OPEN_PROMPT, OPEN_CFG = "square", "a picture", 8.0
SHOWN = 12  # frames in a contact sheet
MEMORY = (24, 48, 240)  # numbers of frames at which memory is measured
MOST_AT_ONCE = 48  # the largest of them without windows
LAP = 24  # frames for one revolution of an object on its orbit
SUBJECTS = {  # of the clips, each with its edits
    "square": (
        shape_view("square", "blue", "dotted", "white", radius=32.0, angle=0.3),
        {"shape_color": {"shape": "circle", "shape_color": "red"}, "background": {"background": "yellow"}},
    ),
    "star": (
        shape_view("star", "yellow", "striped", "purple", radius=36.0, angle=0.1),
        {
            "color": {"shape_color": "cyan"},
            "object_background": {"shape": "heart", "shape_color": "white", "background": "green"},
        },
    ),
}


def long_clip(name: str, frames: int) -> Clip:
    """One of `SUBJECTS` in motion, at the same speed at any length: the object orbits and sways, the background
    drifts."""
    subject, edits = SUBJECTS[name]
    turn = lambda i: 2 * math.pi * i / LAP
    views = tuple(
        subject.edited(camera=Camera(-i % PERIOD, 0.5 * i % PERIOD)).with_actor(
            x=64 + 18 * math.cos(turn(i)),
            y=64 + 14 * math.sin(turn(i)),
            angle=subject.actors[0].angle + 0.4 * math.sin(turn(i) / 1.5),
        )
        for i in range(frames)
    )
    return Clip(name, "orbit", {}, views, tuple(edit_of(kind, changes, views) for kind, changes in edits.items()))


class LongWork:
    """One clip: tuned on once, then edited in every mode."""

    def __init__(self, bench: Bench, clip: Clip, steps: int, window: int, overlap: int):
        self.bench, self.clip, self.window, self.overlap = bench, clip, window, overlap
        self.video = BenchClip(bench, clip.views, clip.source_prompt)
        settings = {"learning_rate": LEARNING_RATE, "precision": "bf16", "window_frames": window}
        self.model = bench.tuned(self.video, steps, **settings)
        self.windows = static_windows(len(clip.views), window, overlap)
        self.inversions = {}  # by mode

    def rows(self, mode: str) -> list[tuple[dict, torch.Tensor]]:
        """For each edit, a row and the edited frames."""
        bench, model = self.bench, in_mode(self.model, mode, self.window, self.overlap)
        begin = time.perf_counter()
        inversion = self.inversions[mode] = bench.invert(model, self.video.latents, self.video.source, DDIM_STEPS)
        inverting = time.perf_counter() - begin
        restored = bench.sample(model, inversion, self.video.source, 1.0)
        rows = []
        for edit in self.clip.edits:
            begin = time.perf_counter()
            latents = bench.sample_latents(model, inversion, bench.encode(edit.target_prompt), CFG)
            seconds = {"seconds_invert": inverting, "seconds_edit": time.perf_counter() - begin}
            edited = bench.decode(latents)
            row = {"clip": self.clip.name, "edit": edit.kind, "mode": mode, "frames": len(edited)}
            row |= score(edited, self.clip, edit, bench.judge) | self.colors_of(edited, edit)
            row |= {"reconstruction_psnr": psnr(restored, self.video.frames), **seconds}
            rows.append(({key: rounded(value) for key, value in row.items()}, edited))
        return rows

    def left_open(self, mode: str) -> tuple[dict, torch.Tensor]:
        """The frames sampled with a prompt that names no colours, and how their colours move; after `rows`."""
        model, prompt = in_mode(self.model, mode, self.window, self.overlap), self.bench.encode(OPEN_PROMPT)
        pictures = self.bench.sample(model, self.inversions[mode], prompt, OPEN_CFG)
        row = {"clip": self.clip.name, "mode": mode, "prompt": OPEN_PROMPT, "cfg": OPEN_CFG}
        objects = object_mask(self.clip.views)
        return row | self.colors(pictures, torch.zeros_like(pictures), objects), pictures

    def colors_of(self, edited: torch.Tensor, edit: Edit) -> dict[str, float]:
        """Seams, the movement of the colours, and success in the first and the last window."""
        truth, objects = render(edit.views), object_mask(edit.views)
        measures = {"seam_ratio": seam_ratio(edited, truth, borders(self.windows, len(edited)))}
        measures |= self.colors(edited, truth, objects)
        for name, window in (("first", self.windows[0]), ("last", self.windows[-1])):
            measures[f"success_{name}"] = judged(edited, self.clip, edit, self.bench.judge, window)["success"]
        return measures

    def colors(self, edited: torch.Tensor, truth: torch.Tensor, objects: torch.Tensor) -> dict[str, float]:
        """Drift from the first to the last window and wander over the clip, see `scores`."""
        measures = {}
        for name, weights in (("object", objects), ("background", 1 - objects)):
            errors = color_errors(edited, truth, weights)
            measures[f"drift_{name}"] = round(drift(errors, self.windows[0], self.windows[-1]), 4)
            measures[f"wander_{name}"] = round(wander(errors), 4)
        return measures

    def sheet(self, pictures: dict[str, torch.Tensor], target: str, file: Path) -> None:
        """Writes a contact sheet: the source, then `pictures`."""
        names = {name.replace(" ", "\n", 1): clip for name, clip in {"source": self.video.frames, **pictures}.items()}
        title = f"{SHOWN} of {len(self.video.frames)} frames, windows of {self.window}"
        titled_sheet(names, SHOWN, file, title, f"source: {self.clip.source_prompt}      target: {target}")


def in_mode(model, mode: str, window: int, overlap: int):
    """A MODEL that edits in one of `MODES`."""
    if mode == ONCE:
        return model
    windows = pack("host.windows")
    windowed = windows.with_windows(model, window, overlap)
    if mode == "windows alone":
        kind, key = "calc_cond_batch", pack("host.inflation").KEY
        windowed.remove_wrappers_with_key(kind, key)
        windowed.add_wrapper_with_key(kind, key, windows.VideoWindows(False))
    return windowed


def peak(bench: Bench, model, frames: int) -> int:
    """The bytes of tensors that one guided step holds at its peak, without the model and the clip."""
    prompt = bench.encode("a red circle on a plain blue background")
    noise = torch.randn(frames, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with LiveTensors() as live:
        pack("host.sampling").sample(model, noise, prompt, bench.empty, CFG, torch.tensor([3.0, 0.0]))
    return live.peak


def table(rows: list[dict], memory: list[dict], left_open: list[dict]) -> str:
    """Markdown: means over the edits by mode, the colours that a prompt leaves open, and the memory of a step."""
    by_mode = {mode: [row for row in rows if row["mode"] == mode] for mode in MODES}
    means = [(m, *(f"{fmean(values_of(own, key)[0]):.3g}" for key in COLUMNS)) for m, own in by_mode.items() if own]
    moves = [(row["mode"], *(f"{row[key]:.3g}" for key in COLORS)) for row in left_open]
    sizes = {(row["mode"], row["frames"]): f"{row['bytes'] / 1e6:.1f}" for row in memory}
    tables = [
        markdown_table(["", *COLUMNS.values()], means),
        markdown_table(["look left open", *(COLUMNS[key] for key in COLORS)], moves),
        markdown_table(
            ["MB a guided step holds", *(f"{frames} frames" for frames in MEMORY)],
            [(mode, *(sizes.get((mode, frames), "") for frames in MEMORY)) for mode in MODES],
        ),
    ]
    return "\n\n".join(tables)


def main() -> int:
    parser = command_parser("long", __doc__)
    parser.add_argument("--frames", type=int, default=48, help="of the clips (default: 48)")
    parser.add_argument("--window", type=int, default=8, help="frames in a window (default: 8)")
    parser.add_argument("--overlap", type=int, default=2, help="frames that windows share (default: 2)")
    parser.add_argument("--steps", type=int, default=TUNE_STEPS, help=f"of the tuning (default: {TUNE_STEPS})")
    parser.add_argument("--mode", choices=MODES, nargs="+", default=MODES, help="default: all")
    parser.add_argument("--clip", choices=SUBJECTS, nargs="+", default=tuple(SUBJECTS), help="default: all")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/long_<device>.json")
    options = parser.parse_args()
    bench, windows = Bench(options.device), (options.window, options.overlap)
    output = options.output or RESULTS / f"long_{'cuda' if bench.on_gpu else 'cpu'}.json"
    settings = {"window": options.window, "overlap": options.overlap, "tune_steps": options.steps}
    about = {**facts("long", options.device), **settings, "cfg": CFG, "ddim_steps": DDIM_STEPS}
    output.parent.mkdir(parents=True, exist_ok=True)
    rows, left_open, memory = [], [], []
    with torch.inference_mode():
        for mode, frames in product(MODES, MEMORY):
            if mode != ONCE or frames <= MOST_AT_ONCE:
                size = peak(bench, in_mode(bench.inflate(), mode, *windows), frames)
                memory.append({"mode": mode, "frames": frames, "bytes": size})
        print(json.dumps(memory), flush=True)
        for name in options.clip:
            work = LongWork(bench, long_clip(name, options.frames), options.steps, *windows)
            file = lambda kind: output.with_name(f"{output.stem}_{work.clip.name}_{kind}.png")
            results = {mode: work.rows(mode) for mode in options.mode}
            rows += [row for edits in results.values() for row, _ in edits]
            print(json.dumps(rows[-2 * len(results) :]), flush=True)
            for number, edit in enumerate(work.clip.edits):
                pictures = {mode: edits[number][1] for mode, edits in results.items()}
                truth = render(edit.views)
                work.sheet({"truth": truth, **pictures}, edit.target_prompt, file(edit.kind))
            if name == OPEN_CLIP:
                samples = {mode: work.left_open(mode) for mode in options.mode}
                left_open += [row for row, _ in samples.values()]
                work.sheet({mode: clip for mode, (_, clip) in samples.items()}, OPEN_PROMPT, file("open"))
    write_rows(output, rows, {**about, "memory": memory, "left_open": left_open})
    text = table(rows, memory, left_open)
    output.with_suffix(".md").write_text(f"# Long clips\n\n{about['command']}\n\n{text}\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
