"""The command line of the benchmarks that measure one feature on rendered clips."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

from benchmarks.bench import Bench
from benchmarks.machine import machine
from benchmarks.results import RESULTS, write_rows


def command_parser(name: str, description: str) -> argparse.ArgumentParser:
    """The parser of `dev.py bench <name>`, with `--device`."""
    parser = argparse.ArgumentParser(prog=f"dev.py bench {name}", description=description)
    text = "auto: a GPU if there is one"
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help=text)
    return parser


def facts(name: str, device: str, words: list[str] | None = None) -> dict:
    """How a run was made: its command, including the words after `dev.py bench <name>`, and its machine."""
    command = shlex.join(["python3", "dev.py", "bench", name, *(sys.argv[1:] if words is None else words)])
    return {"command": command, **machine(device), "threads": torch.get_num_threads()}


def run(
    name: str,
    description: str,
    file: str,
    clips: Sequence,
    measure: Callable[[Bench, object, int, Path], Iterable[dict]],
    table: Callable[[list[dict]], str],
    count: int | None = None,
    steps: int | None = None,
) -> int:
    """Measures clip after clip, writes the rows after each and prints their table.

    `file`: the results' name, in which `{device}` and `{steps}` are filled in. `measure(bench, clip, steps, stem)`
    yields a clip's rows; it may write pictures to `<stem>_*`. `count`, `steps`: the defaults of --clips and
    --steps (of DDIM), if the command has them.
    """
    parser = command_parser(name, description)
    if count:
        parser.add_argument("--clips", type=int, default=count, metavar="N", help=f"first N clips (default: {count})")
    if steps:
        parser.add_argument("--steps", type=int, default=steps, help=f"DDIM steps (default: {steps})")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder or file (default: benchmarks/results)")
    options = vars(parser.parse_args())
    device, output = options.pop("device"), options.pop("output")
    bench, rows = Bench(device), []
    if output.suffix != ".json":
        output /= file.format(device="cuda" if bench.on_gpu else "cpu", **options)
    output.parent.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode():
        for number, clip in enumerate(clips[: options.get("clips")], start=1):
            for row in measure(bench, clip, options.get("steps"), output.with_suffix("")):
                rows.append(row)
                print(json.dumps(row), flush=True)
            so_far = ["--clips", str(number)] if count else []
            so_far += ["--steps", str(options["steps"])] if steps else []
            write_rows(output, rows, facts(name, device, so_far))
    print(table(rows))
    return 0
