"""Processes that write and can be killed: `python -m tests.faults.files.writers KIND`.

It makes ready what is to be written, then for each line "N COUNT FOLDER" on its input starts N children that write it
to that folder COUNT times, or with 0 until they are killed. It prints their numbers, then how they ended. Children are
forked, which is quick.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from devtools import in_process
from ei2.model_identity import ModelIdentity
from ei2.settings import PRESETS
from ei2.snapshot_file import Run, save_snapshot
from ei2.tune_file import TuneResult, save_tune
from ei2.tuning import TrainingState, TuneSettings

Write = Callable[[Path, int], object]  # to a folder, for the so-manieth time
CHANNELS = 512  # a megabyte a matrix
BASE = ModelIdentity("f" * 64, "SD15", torch.zeros(50), 2.0**-10, 6e-8)


def a_tune() -> TuneResult:
    square = lambda: torch.ones(CHANNELS, CHANNELS)
    temporal = {f"a.{layer}.weight": square() for layer in ("to_q", "to_k", "to_v", "to_out")}
    query = {f"a.attn{i}.to_q.weight": square() for i in (1, 2)}
    return TuneResult(PRESETS["EI2"], temporal, query, [0.5], 3, (8, 8), TuneSettings(1), BASE)


def a_run() -> Run:
    return Run(torch.zeros(3, 4, 8, 8), [torch.zeros(1, 77, 8)], TuneSettings(9), PRESETS["EI2"], BASE)


def a_state(steps: int) -> TrainingState:
    filled = lambda: torch.full((CHANNELS, CHANNELS), float(steps))
    moments = [{"step": torch.tensor(float(steps)), "exp_avg": filled(), "exp_avg_sq": filled()}]
    return TrainingState([0.5] * steps, moments, torch.Generator().get_state(), {}, {"temporal.a": filled()})


def tunes() -> Write:
    """EI2 Save Tune, each tune with a prompt that tells it from all others."""
    in_process.import_host("cpu")
    in_process.import_pack()
    import folder_paths

    key, known = in_process.pack("host.folders").TUNES, folder_paths.folder_names_and_paths
    node, kind = in_process.pack("nodes.save_tune").SaveTune, in_process.pack("ei2.tune_file").TuneResult
    tune = kind(**vars(a_tune()))

    def write(folder: Path, i: int) -> None:
        known[key] = ([str(folder)], known[key][1])
        node.execute(tune, "clips/jeep", f"{os.getpid()} {i}")

    return write


def overwritten() -> Write:
    tune = a_tune()
    return lambda folder, i: save_tune(folder / "a.safetensors", dataclasses.replace(tune, losses=[0.5] * (i + 1)))


def snapshots() -> Write:
    run = a_run()
    return lambda folder, i: save_snapshot(folder / f"{run.name}.safetensors", run, a_state(i + 1))


def inversions() -> Write:
    """What the cache does with them; some replace others, and some make room for others."""
    in_process.import_host("cpu")
    in_process.import_pack()
    import folder_paths

    cache, kind = in_process.pack("host.inversion_cache"), in_process.pack("ei2.inverted_clip").Inversion
    noise = torch.ones(3, 4, 64, 64)
    made = kind(noise, noise, torch.linspace(1, 0, 21), trajectory=torch.ones(21, *noise.shape))

    def write(folder: Path, i: int) -> None:
        folder_paths.set_user_directory(str(folder))
        cache._store(f"{i % 5:064x}", made, 12e6)

    return write


KINDS = {one.__name__: one for one in (tunes, overwritten, snapshots, inversions)}


def main() -> None:
    torch.set_num_threads(1)  # a forked child has no threads but its own
    write = KINDS[sys.argv[1]]()
    print("ready", flush=True)
    for line in sys.stdin:
        together, count, folder = line.rstrip("\n").split(" ", 2)
        children = []
        for _ in range(int(together)):
            child = os.fork()
            if not child:
                _work(write, Path(folder), int(count))
            children.append(child)
        print(*children, flush=True)
        print(*(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children), flush=True)


def _work(write: Write, folder: Path, count: int) -> None:
    try:
        i = 0
        while not count or i < count:
            write(folder, i)
            i += 1
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
