"""A process that writes and can be killed: `python -m tests.faults.files.writers KIND FOLDER [COUNT]`.

It makes ready what is to be written, then for each line on its input starts a child that writes it again and again, COUNT
times or until it is killed. It prints the child's number, and how it ended. Children are forked, which is quick.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from devtools import in_process
from ei2.model_identity import ModelIdentity
from ei2.settings import PRESETS
from ei2.snapshot_file import Run, save_snapshot
from ei2.tune_file import save_tune
from ei2.tune_result import TuneResult
from ei2.tuning import TrainingState, TuneSettings

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


def tunes(folder: Path) -> Callable[[int], object]:
    """EI2 Save Tune, each tune with a prompt that tells it from all others."""
    in_process.import_host("cpu")
    in_process.import_pack()
    import folder_paths

    folders = in_process.pack("nodes.host.tune_folder")
    known = folder_paths.folder_names_and_paths
    known[folders.KEY] = ([str(folder)], known[folders.KEY][1])
    node, kind = in_process.pack("nodes.save_tune").SaveTune, in_process.pack("ei2.tune_result").TuneResult
    tune = kind(**vars(a_tune()))
    return lambda i: node.execute(tune, "clips/jeep", f"{os.getpid()} {i}")


def overwritten(folder: Path) -> Callable[[int], object]:
    tune = a_tune()
    return lambda i: save_tune(folder / "tune.safetensors", dataclasses.replace(tune, losses=[0.5] * (i + 1)))


def snapshots(folder: Path) -> Callable[[int], object]:
    run = a_run()
    return lambda i: save_snapshot(folder / f"{run.name}.safetensors", run, a_state(i + 1))


def inversions(folder: Path) -> Callable[[int], object]:
    """What the cache does with them; some replace others, and some make room for others."""
    in_process.import_host("cpu")
    in_process.import_pack()
    import folder_paths

    folder_paths.set_user_directory(str(folder))
    cache, kind = in_process.pack("nodes.host.inversion_cache"), in_process.pack("nodes.inversion").Inversion
    noise = torch.ones(3, 4, 64, 64)
    made = kind(noise, noise, torch.linspace(1, 0, 21), trajectory=torch.ones(21, *noise.shape))
    return lambda i: cache._store(f"{i % 5:064x}", made, 12e6)


KINDS = {one.__name__: one for one in (tunes, overwritten, snapshots, inversions)}


def main() -> None:
    torch.set_num_threads(1)  # a forked child has no threads but its own
    kind, folder, *count = sys.argv[1:]
    write, count = KINDS[kind](Path(folder)), int(count[0]) if count else None
    print("ready", flush=True)
    for line in sys.stdin:
        together, children = int(line), []
        for _ in range(together):
            child = os.fork()
            if not child:
                _work(write, count)
            children.append(child)
        print(*children, flush=True)
        print(*(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children), flush=True)


def _work(write: Callable[[int], object], count: int | None) -> None:
    try:
        i = 0
        while count is None or i < count:
            write(i)
            i += 1
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
