"""Long clips: what editing in windows costs in looks, and what it saves in memory.

Two rendered clips are each tuned on in random windows; then each is inverted and edited, with two edits, in context
windows that share coarse tokens of the whole clip, in the same windows without them, and all frames at once. One is
also sampled with a prompt that leaves its look open, so that every window could choose its own.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from statistics import fmean

import torch

from benchmarks.editbench.bench import Bench
from benchmarks.editbench.clips import Clip
from benchmarks.editbench.scores import score
from benchmarks.editbench.sheets import add_title, spread
from benchmarks.machine import machine
from devtools import in_process
from devtools.environment import ROOT
from devtools.results import contact_sheet
from ei2.measures import psnr
from ei2.windows import static_windows
from miniature.world import object_mask, render

from .clips import LOOKS, long_clip
from .live import LiveTensors
from .scores import borders, color_errors, drift, seam_ratio, wander

TUNE_STEPS, LEARNING_RATE, DDIM_STEPS, CFG = 100, 1e-3, 12, 4.0
MODES = ("whole-clip tokens", "windows alone", "all at once")
COLUMNS = {
    "success": "success", "preservation": "kept", "psnr": "PSNR, dB", "flicker": "flicker", "seam_ratio": "seams",
    "drift_object": "drift, object", "drift_background": "drift, background", "wander_object": "wander, object",
    "wander_background": "wander, background", "reconstruction_psnr": "reconstruction, dB",
}  # fmt: skip
OPEN_CLIP, OPEN_PROMPT, OPEN_CFG = "square", "a picture", 8.0
SHOWN = 12  # frames in a contact sheet
MEMORY = (24, 48, 240)  # frames with which memory is measured
MOST_AT_ONCE = 48  # of them


class LongBench(Bench):
    """The models, and context windows."""

    def __init__(self, device: str, window: int, overlap: int):
        super().__init__(device, torch.get_num_threads())
        self.host_windows, self.window, self.overlap = in_process.pack("nodes.host.windows"), window, overlap

    def in_mode(self, model, mode: str):
        """A MODEL that edits in one of `MODES`."""
        if mode == "all at once":
            return model
        windowed = self.host_windows.with_windows(model, self.window, self.overlap)
        if mode == "windows alone":
            kind, key = "calc_cond_batch", self.inflation.KEY
            windowed.remove_wrappers_with_key(kind, key)
            windowed.add_wrapper_with_key(kind, key, self.host_windows.VideoWindows(False))
        return windowed

    def peak(self, mode: str, frames: int) -> int:
        """Bytes of tensors that one guided step holds at its peak, besides the model and the clip."""
        model = self.in_mode(self.inflation.inflate(self.model, self.settings.PRESETS["EI2"]), mode)
        prompt, empty = self.encode("a red circle on a plain blue background"), self.encode("")
        noise = torch.randn(frames, 4, 16, 16, generator=torch.Generator().manual_seed(0))
        with LiveTensors() as live:
            self.sampling.sample(model, noise, prompt, empty, CFG, torch.tensor([3.0, 0.0]))
        return live.peak


class LongWork:
    """One clip: tuned on once, then edited in every mode."""

    def __init__(self, bench: LongBench, clip: Clip, steps: int):
        self.bench, self.clip = bench, clip
        self.frames = render(list(clip.scenes))
        self.latents = bench.vae.encode(self.frames.movedim(1, -1))
        self.source, self.empty = bench.encode(clip.source_prompt), bench.encode("")
        further = {"window_frames": bench.window}
        self.model = bench.tuned(self.latents, self.source, steps, LEARNING_RATE, "bf16", **further)
        self.windows = static_windows(len(clip.scenes), bench.window, bench.overlap)
        self.inverted: dict[str, tuple] = {}  # by mode: noise and sigmas

    def rows(self, mode: str) -> list[tuple[dict, torch.Tensor]]:
        """A row and the edited frames per edit."""
        model, sampling = self.bench.in_mode(self.model, mode), self.bench.sampling
        begin = time.perf_counter()
        noise, sigmas = sampling.invert(model, self.latents, self.source, DDIM_STEPS, 0)
        inverting = time.perf_counter() - begin
        self.inverted[mode] = noise, sigmas
        restored = self.bench.decode(sampling.sample(model, noise, self.source, self.empty, 1.0, sigmas))
        rows = []
        for edit in self.clip.edits:
            begin = time.perf_counter()
            target = self.bench.encode(edit.target_prompt)
            latents = sampling.sample(model, noise, target, self.empty, CFG, sigmas)
            seconds = time.perf_counter() - begin
            edited = self.bench.decode(latents)
            row = {
                "clip": self.clip.name, "edit": edit.kind, "mode": mode, "frames": len(edited),
                **score(edited, self.clip, edit, self.bench.judge),
                **self.look(edited, edit),
                "reconstruction_psnr": psnr(restored, self.frames),
                "seconds_invert": inverting, "seconds_edit": seconds,
            }  # fmt: skip
            row = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
            rows.append((row, edited))
        return rows

    def left_open(self, mode: str) -> tuple[dict, torch.Tensor]:
        """How the colours move over the clip where the prompt names none, and the frames; after `rows`."""
        noise, sigmas = self.inverted[mode]
        model, prompt = self.bench.in_mode(self.model, mode), self.bench.encode(OPEN_PROMPT)
        found = self.bench.decode(self.bench.sampling.sample(model, noise, prompt, self.empty, OPEN_CFG, sigmas))
        row = {"clip": self.clip.name, "mode": mode, "prompt": OPEN_PROMPT, "cfg": OPEN_CFG}
        return row | self.colors(found, torch.zeros_like(found), object_mask(list(self.clip.scenes))), found

    def look(self, edited: torch.Tensor, edit) -> dict[str, float]:
        """Seams, and how the object's and the background's colours move over the clip; with success at both ends."""
        truth, objects = render(list(edit.target_scenes)), object_mask(list(edit.target_scenes))
        first, last = self.windows[0], self.windows[-1]
        found = {"seam_ratio": seam_ratio(edited, truth, borders(self.windows, len(edited)))}
        found |= self.colors(edited, truth, objects)
        for name, window in (("first", first), ("last", last)):
            seen = self.bench.judge.see(edited[window])
            right = [all(one[key] == value for key, value in edit.changes.items()) for one in seen]
            found[f"success_{name}"] = sum(right) / len(right)
        return found

    def colors(self, edited: torch.Tensor, truth: torch.Tensor, objects: torch.Tensor) -> dict[str, float]:
        """Drift from the first to the last window and wander over the clip, see `scores`."""
        found = {}
        for name, weights in (("object", objects), ("background", 1 - objects)):
            errors = color_errors(edited, truth, weights)
            found[f"drift_{name}"] = round(drift(errors, self.windows[0], self.windows[-1]), 4)
            found[f"wander_{name}"] = round(wander(errors), 4)
        return found


def table(rows: list[dict], memory: list[dict], left_open: list[dict]) -> str:
    """Markdown: the modes' means over the edits, the colours that a prompt leaves open, and what a step holds."""
    lines = [f"| | {' | '.join(COLUMNS.values())} |", f"|---|{'---:|' * len(COLUMNS)}"]
    for mode in MODES:
        own = [row for row in rows if row["mode"] == mode]
        if own:
            lines.append(f"| {mode} | " + " | ".join(f"{fmean(row[key] for row in own):.3g}" for key in COLUMNS) + " |")
    keys = [key for key in COLUMNS if key.startswith(("drift", "wander"))]
    lines += ["", f"| look left open | {' | '.join(COLUMNS[key] for key in keys)} |", f"|---|{'---:|' * len(keys)}"]
    lines += [f"| {row['mode']} | {' | '.join(f'{row[key]:.3g}' for key in keys)} |" for row in left_open]
    lines += ["", f"| MB a guided step holds | {' | '.join(f'{frames} frames' for frames in MEMORY)} |"]
    lines.append(f"|---|{'---:|' * len(MEMORY)}")
    for mode in MODES:
        found = {row["frames"]: f"{row['bytes'] / 1e6:.1f}" for row in memory if row["mode"] == mode}
        lines.append(f"| {mode} | {' | '.join(found.get(frames, '') for frames in MEMORY)} |")
    return "\n".join(lines)


def show(work: LongWork, results: dict[str, list[tuple[dict, torch.Tensor]]], stem: Path) -> None:
    """Writes a contact sheet per edit of a clip: `<stem>_<clip>_<edit>.png`."""
    for number, edit in enumerate(work.clip.edits):
        pictures = {"source": work.frames, "truth": render(list(edit.target_scenes))}
        pictures |= {mode: found[number][1] for mode, found in results.items()}
        sheet(work, pictures, edit.target_prompt, stem.with_name(f"{stem.name}_{work.clip.name}_{edit.kind}.png"))


def sheet(work: LongWork, pictures: dict[str, torch.Tensor], target: str, file: Path) -> None:
    """Writes one contact sheet, a row for each of `pictures`."""
    names = {name.replace(" ", "\n", 1): spread(clip, SHOWN) for name, clip in pictures.items()}
    contact_sheet(names, file)
    title = f"{SHOWN} of {len(work.frames)} frames, windows of {work.bench.window}"
    add_title(file, title, f"source: {work.clip.source_prompt}      target: {target}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="dev.py bench long", description=__doc__)
    parser.add_argument("--frames", type=int, default=48, help="of the clips (default: 48)")
    parser.add_argument("--window", type=int, default=8, help="frames in a window (default: 8)")
    parser.add_argument("--overlap", type=int, default=2, help="frames that windows share (default: 2)")
    parser.add_argument("--steps", type=int, default=TUNE_STEPS, help=f"of the tuning (default: {TUNE_STEPS})")
    parser.add_argument("--mode", choices=MODES, nargs="+", default=MODES, help="default: all")
    parser.add_argument("--clip", choices=LOOKS, nargs="+", default=tuple(LOOKS), help="default: all")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/long_<device>.json")
    options = parser.parse_args()
    bench = LongBench(options.device, options.window, options.overlap)
    name = "long_cuda" if bench.on_gpu else "long_cpu"
    output = options.output or ROOT / "benchmarks" / "results" / f"{name}.json"
    about = {"command": shlex.join(["python3", "dev.py", "bench", "long", *sys.argv[1:]]), **machine(options.device),
             "threads": torch.get_num_threads(), "window": options.window, "overlap": options.overlap,
             "tune_steps": options.steps, "cfg": CFG, "ddim_steps": DDIM_STEPS}  # fmt: skip
    output.parent.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode():
        memory = [
            {"mode": mode, "frames": frames, "bytes": bench.peak(mode, frames)}
            for mode in MODES for frames in MEMORY if mode != "all at once" or frames <= MOST_AT_ONCE
        ]  # fmt: skip
        print(json.dumps(memory), flush=True)
        rows, left_open = [], []
        for clip in options.clip:
            work = LongWork(bench, long_clip(clip, options.frames), options.steps)
            results = {}
            for mode in options.mode:
                results[mode] = work.rows(mode)
                rows += [row for row, _ in results[mode]]
                print(json.dumps(rows[-2:]), flush=True)
            stem = output.with_suffix("")
            show(work, results, stem)
            if clip == OPEN_CLIP:
                found = {mode: work.left_open(mode) for mode in options.mode}
                left_open += [row for row, _ in found.values()]
                pictures = {"source": work.frames} | {mode: frames for mode, (_, frames) in found.items()}
                sheet(work, pictures, OPEN_PROMPT, stem.with_name(f"{stem.name}_{clip}_open.png"))
    results = {**about, "memory": memory, "left_open": left_open, "rows": rows}
    output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    text = table(rows, memory, left_open)
    output.with_suffix(".md").write_text(f"# Long clips\n\n{about['command']}\n\n{text}\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
