"""Memory: the peak of tuning, inversion and edit for several numbers of frames and
sizes, compared with the pack's estimate.

Each clip runs in its own process. Numbers include the model's weights; random weights take as much memory as real ones.
Without the device, the table shows only the estimate, and nothing is written.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import torch

from benchmarks.machine import machine, peak_bytes, start_peak, uses_gpu
from benchmarks.results import RESULTS, markdown_table, write_rows
from benchmarks.speed.steps import OURS, Place, Steps, Subject, Way
from benchmarks.stable_diffusion import UNETS
from devtools import in_process
from devtools.environment import ROOT

TUNINGS = {  # checkpointing, optimizer
    "tune": (False, "AdamW"),
    "tune, checkpointing": (True, "AdamW"),
    "tune, checkpointing, factored AdamW": (True, "factored AdamW"),
}
WORKS = (*TUNINGS, "invert", "edit")
FRAMES = (8, 16, 24)
PIXELS = {"mini": (64, 128, 192), "sd15": (256, 384, 512), "sdxl": (768, 1024)}
# Makes the C library return each tensor's memory at once, so the peak is memory in use. Otherwise
# fragmentation would add up to half as much again.
ENVIRONMENT = dict(os.environ, MALLOC_MMAP_THRESHOLD_="65536")


def load(name: str, device: torch.device, dtype: torch.dtype, weights: bool):
    """A MODEL. Stable Diffusion's weights are random; without `weights` it has none, which is enough for an
    estimate."""
    import comfy.latent_formats
    import comfy.model_patcher
    import comfy.supported_models

    if name == "mini":
        return in_process.pack("host.miniature").load_miniature()[0]
    kind, latents = {
        "sd15": (comfy.supported_models.SD15, comfy.latent_formats.SD15),
        "sdxl": (comfy.supported_models.SDXL, comfy.latent_formats.SDXL),
    }[name]
    config = kind({"adm_in_channels": None, **UNETS[name]})
    config.set_inference_dtype(dtype, None)
    config.latent_format = latents()
    with torch.device("cpu" if weights else "meta"):
        model = config.get_model({}, "")
    if weights:
        for parameter in model.parameters():
            parameter.normal_(std=0.02)
    return comfy.model_patcher.ModelPatcher(model, device, torch.device("cpu"))


def measure(name: str, device: str, frames: int, pixels: int, works: list[str]) -> list[dict]:
    """A row for each kind of work on one clip. `peak` is None if it cannot be measured here."""
    on_gpu = uses_gpu(device)
    real = device == "cpu" or on_gpu
    in_process.import_host(device, exact=device == "cpu")
    in_process.import_pack()
    estimates = in_process.pack("host.memory")
    precision, dtype = ("fp32", torch.float32) if device == "cpu" else ("bf16", torch.float16)
    rows, place = [], Place(frames, pixels, pixels)
    with torch.inference_mode():
        steps = Steps(Subject(name, load(name, torch.device(device), dtype, real), None, on_gpu))
        inputs = (steps.inflated[OURS], steps.subject.prompt(), place.latents())
        for work in reversed(works):  # small ones first: memory kept by the heap after large ones would hide them
            need = _estimate(estimates, *inputs, work, precision, device)
            peak = None
            if real:
                way = Way(OURS, precision, *TUNINGS.get(work, ()))
                run = partial(steps.runner, work.partition(",")[0], way)
                run(Place(2, 64, 64))(1)  # loads the model and warms up
                peak = _peak(lambda: run(place)(1), need.weights, on_gpu)
            row = {"model": name, "frames": frames, "pixels": pixels, "work": work, "precision": precision}
            rows.append({**row, "estimate": need.total, "peak": peak})
    return rows


def _peak(run, weights: int, on_gpu: bool) -> int:
    """The peak of a run, including the weights: on a GPU they are counted already; in main memory they exist before."""
    start_peak(on_gpu)
    before = 0 if on_gpu else peak_bytes(on_gpu)
    run()
    return peak_bytes(on_gpu) - before + (0 if on_gpu else weights)


def _estimate(estimates, model, prompt, latents, work: str, precision: str, device: str):
    clip = estimates.clip_of(latents)
    if work in TUNINGS:
        return estimates.training_estimate(model, precision, prompt).training(clip, *TUNINGS[work])
    estimate = estimates.inference_estimate(model, prompt)
    if device != "cpu" and not uses_gpu(device):  # the host would compute there
        estimate = replace(estimate, arithmetic=replace(estimate.arithmetic, fused=True))
    return estimate.inference(replace(clip, chunks=2 if work == "edit" else 1))


def table(rows: list[dict]) -> str:
    """Markdown: a line per clip, a column per kind of work, each "measured (estimated)"."""
    lines: dict[tuple, list[str]] = {}
    for row in sorted(rows, key=_key):
        measured = "not measured" if row["peak"] is None else _size(row["peak"])
        clip = lines.setdefault(_key(row)[:3], ["not measured"] * len(WORKS))
        clip[WORKS.index(row["work"])] = f"{measured} ({_size(row['estimate'])})"
    clips = [(name, str(frames), f"{pixels}²", *cells) for (name, pixels, frames), cells in lines.items()]
    return markdown_table(["model", "frames", "size", *WORKS], clips)


def _key(row: dict) -> tuple:
    """What distinguishes rows, in the order of the file."""
    return row["model"], row["pixels"], row["frames"], WORKS.index(row["work"]), row["precision"]


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.0f} MB"


def main() -> int:
    parser = argparse.ArgumentParser(prog="dev.py bench memory", description=__doc__)
    parser.add_argument("--model", choices=PIXELS, default="mini", help="default: mini; the others have random weights")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--frames", type=int, nargs="+", default=FRAMES, metavar="F")
    parser.add_argument("--pixels", type=int, nargs="+", metavar="P", help="sides of square frames")
    parser.add_argument("--works", nargs="+", choices=WORKS, default=WORKS)
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/memory_<device>.json, added to")
    parser.add_argument("--clip", action="store_true", help=argparse.SUPPRESS)  # measures one clip, in this process
    options = parser.parse_args()
    sizes = options.pixels or PIXELS[options.model]
    if options.clip:
        print(json.dumps(measure(options.model, options.device, options.frames[0], sizes[0], options.works)))
        return 0
    output = options.output or RESULTS / f"memory_{options.device}.json"
    rows = json.loads(output.read_text(encoding="utf-8"))["rows"] if output.exists() else []
    about = {"command": "python3 dev.py bench memory", **machine(options.device)}
    for pixels, frames in product(sizes, options.frames):
        command = [sys.executable, "-m", "benchmarks.memory", "--clip", "--model", options.model]
        command += ["--device", options.device, "--frames", str(frames), "--pixels", str(pixels)]
        command += ["--works", *options.works]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, env=ENVIRONMENT)
        new = {_key(row): row for row in json.loads(done.stdout.splitlines()[-1])}
        print(json.dumps(list(new.values())), flush=True)
        rows = sorted([row for row in rows if _key(row) not in new] + list(new.values()), key=_key)
        if all(row["peak"] for row in rows):
            write_rows(output, rows, about)
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
