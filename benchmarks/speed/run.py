"""Speed and memory: tuning, inversion, edit and the attentions, each compared with a literal implementation.

The results are JSON, a table and plots of how time and memory grow with frames and resolution. Rows are written after
every measurement.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.machine import uses_gpu
from benchmarks.results import RESULTS, write_rows
from benchmarks.runner import command_parser, facts
from devtools.environment import DEV, SetupError

from . import report
from .measure import Measurement, Plan
from .steps import MODELS, WHAT, Place, Steps, load
from .timing import datasheet

ALL_FRAMES = (8, 16, 24, 32, 64)
GPU = {"rounds": (3, 2), "share": 0.5}
LARGE_ON_CPU = Plan(Place(2, 128, 128), (2, 4), (64, 128, 192), few=2, rounds=(1, 1), share=0.0)
PLANS = {  # by model and whether it is on a GPU
    ("miniature", False): Plan(Place(8, 128, 128), ALL_FRAMES, (64, 128, 192, 256), few=8, rounds=(5, 2)),
    ("miniature", True): Plan(Place(8, 128, 128), ALL_FRAMES, (64, 128, 192, 256), few=8, **GPU),
    ("sd15", False): LARGE_ON_CPU,
    ("sd15", True): Plan(Place(24, 512, 512), ALL_FRAMES, (256, 384, 512, 768), few=8, **GPU),
    ("sdxl", False): LARGE_ON_CPU,
    ("sdxl", True): Plan(Place(8, 1024, 1024), (8, 16, 24), (512, 768, 1024), few=8, **GPU),
}
QUICK = Plan(Place(3, 32, 32), (2,), (48,), few=3, attention_frames=(2, 3), rounds=(1, 1), share=0.0)


def arguments(words: list[str] | None) -> argparse.Namespace:
    parser = command_parser("speed", __doc__)
    text = "sd15 and sdxl have random weights in full size (default: sd15 on a GPU, miniature on a CPU)"
    parser.add_argument("--model", choices=MODELS, help=text)
    text = "the first is where all ways are compared"
    parser.add_argument("--frames", type=int, nargs="+", metavar="N", help=text)
    text = f"sides of square pictures, multiples of 64; {text}"
    parser.add_argument("--size", type=int, nargs="+", metavar="PIXELS", help=text)
    parser.add_argument("--threads", type=int, help="of torch on a CPU (default: torch's own choice)")
    parser.add_argument("--only", choices=(*WHAT, "attention"), help="measure nothing else")
    text = "no measurement starts after this time (default: 9)"
    parser.add_argument("--minutes", type=float, default=9.0, help=text)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, a step each: does everything run?")
    text = "folder for the results (default: benchmarks/results; with --quick or --only .dev/speed)"
    parser.add_argument("--output", type=Path, help=text)
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    begin, options = time.monotonic(), arguments(words)
    try:
        check(options)
        on_gpu = uses_gpu(options.device)
        device, usual = ("cuda", "sd15") if on_gpu else ("cpu", "miniature")
        name = options.model or ("miniature" if options.quick else usual)
        plan = chosen(PLANS[name, on_gpu], options)
        folder = (options.output or (DEV / "speed" if options.quick or options.only else RESULTS)).resolve()
        if options.threads:
            torch.set_num_threads(options.threads)
        measurement = Measurement(Steps(load(name, device)), plan)
    except (SetupError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    file = folder / (f"speed_{device}.json" if name == usual else f"speed_{device}_{name}.json")
    about = {
        **facts("speed", device, words),
        "model": name,
        "base": [plan.base.frames, plan.base.width, plan.base.height],
        "datasheet_tflops": datasheet(measurement.subject.device),
        "complete": False,
    }
    try:
        execute(measurement, options, about, file, begin)
    except KeyboardInterrupt:
        print("\nStopped; the rows so far are kept.", file=sys.stderr)
        return 130
    print(*report.write(file), sep="\n")
    return 0


def check(options: argparse.Namespace) -> None:
    """Raises ValueError for options that cannot be measured."""
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("There is no CUDA device here: choose --device cpu.")
    if any(frames < 2 for frames in options.frames or ()):
        raise ValueError("--frames must be 2 or more: a video of one frame has no motion to learn.")
    if any(size < 64 or size % 64 for size in options.size or ()):
        raise ValueError("--size must be a multiple of 64 pixels, such as 512.")
    if options.threads is not None and options.threads < 1:
        raise ValueError("--threads must be 1 or more.")


def chosen(plan: Plan, options: argparse.Namespace) -> Plan:
    """The plan, changed by the command line's options."""
    plan = QUICK if options.quick else plan
    if options.frames:
        frames, base = tuple(options.frames), replace(plan.base, frames=options.frames[0])
        plan = replace(plan, frames=frames, attention_frames=frames, base=base, few=min(frames))
    if options.size:
        base = replace(plan.base, width=options.size[0], height=options.size[0])
        plan = replace(plan, sizes=tuple(options.size), base=base)
    return plan


def execute(measurement: Measurement, options: argparse.Namespace, about: dict, file: Path, begin: float) -> None:
    """Measures and writes; `complete` if there was time for everything."""
    rows = []
    for measure in measurement.work(options.only):
        if rows and time.monotonic() - begin > 60 * options.minutes:
            print(f"{options.minutes:g} minutes are over: the rest is left out.", flush=True)
            return
        new = measure()
        rows += new
        write_rows(file, rows, about)
        for row in new:
            print(report.line(row), flush=True)
    write_rows(file, rows, {**about, "complete": True})


if __name__ == "__main__":
    sys.exit(main())
