"""EditBench: every method edits every clip, and the edits are scored against the rendered right result.

Rows are written after every job, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shlex
import signal
import sys
import time
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from pathlib import Path

import torch

from benchmarks.machine import machine, uses_gpu
from devtools.environment import DEV, ROOT, SetupError
from devtools.host import locate

from . import report, sheets
from .bench import Bench
from .clips import clips_of
from .job import GIVEN, Job
from .plan import plan
from .rows import identity, load, select

RESULTS = ROOT / "benchmarks" / "results"
STRIPS = DEV / "editbench"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dev.py bench edit", description=__doc__)
    parser.add_argument("--split", choices=("test", "dev"), default="test", help="which clips (default: test)")
    parser.add_argument("--quick", action="store_true", help="a few steps on two tiny clips: does everything run?")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU if there is one")
    parser.add_argument("--workers", type=count, help="processes (default: one per core on a CPU, one on a GPU)")
    parser.add_argument("--method", action="append", dest="methods", metavar="NAME", help="only this one; repeatable")
    parser.add_argument("--clips", type=count, metavar="N", help="only the first N; every 6 hold all motions")
    parser.add_argument("--output", type=Path, help="folder for the results, seen from the project's (default: "
                        "benchmarks/results); one run at a time may write there")
    return parser.parse_args()


def count(text: str) -> int:
    """A whole number above zero, for argparse."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what stops a service stops the processes, too
    split = "quick" if options.quick else options.split
    folder = (options.output or (STRIPS / "quick-results" if options.quick else RESULTS)).resolve()
    file = folder / f"editbench_{split}.json"
    try:
        jobs = chosen(plan(split), options.methods, options.clips)
        if options.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("There is no CUDA device here: choose --device cpu.")
        if options.quick:
            file.unlink(missing_ok=True)  # it is there to run, not to go on
        locate()  # before the processes start, which could not say so plainly
        workers = options.workers or default_workers(options.device)
        failed = execute(jobs, file, STRIPS / split, options.device, workers)
    except KeyboardInterrupt:
        print("\nStopped; the same command goes on from here.", file=sys.stderr)
        return 130
    except (SetupError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    if file.exists():
        print(*report.write(file), sep="\n")
        try:
            print(*sheets.write(load(file), clips_of(split), STRIPS / split, folder, file.stem), sep="\n")
        except (OSError, ValueError) as error:  # rows made elsewhere come without frames, some runs without a rival
            print(f"No contact sheets: {error}", file=sys.stderr)
    return 1 if failed else 0


def chosen(jobs: list[Job], methods: list[str] | None, first: int | None) -> list[Job]:
    """The jobs of some methods and of the `first` clips. Raises ValueError for a method that has none."""
    known = list(dict.fromkeys(method for job in jobs for method in job.methods))
    for name in methods or ():
        if name not in known:
            raise ValueError(f"There is no method {name!r} here: use one of {', '.join(known)}.")
    names = list(dict.fromkeys(job.clip for job in jobs))[:first]
    jobs = [job.only(methods or known) for job in jobs if job.clip in names]
    return [job for job in jobs if job.cases]


def execute(jobs: list[Job], file: Path, strips: Path, device: str, workers: int) -> int:
    """Runs of the jobs the cases whose rows are not all in the results file yet, made from the same, and adds theirs.
    Returns how many jobs failed; the others go on."""
    rows = load(file) if file.exists() else []
    done = {identity(row): {name: row.get(name) for name in GIVEN} for row in rows}
    todo = [job for job in (job.missing(done) for job in jobs) if job.cases]
    wanted, left = (sum(len(job.given()) for job in some) for some in (jobs, todo))
    print(f"{wanted} edits, {wanted - left} of them done, {len(todo)} jobs to do, {workers} processes", flush=True)
    if not todo:
        return 0
    file.parent.mkdir(parents=True, exist_ok=True)
    threads = max(1, (os.cpu_count() or 1) // workers)
    note_machine(file, device, workers, threads)
    begin, failed = time.monotonic(), 0
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=start_worker, initargs=(device, threads)) as pool:
        futures = {pool.submit(run_job, job, strips): job for job in todo}
        try:
            for number, future in enumerate(as_completed(futures), start=1):
                job = futures[future]
                error = future.exception()
                if isinstance(error, (RuntimeError, ValueError)) and not isinstance(error, BrokenExecutor):
                    failed += 1
                    print(f"{job} failed: {error}", file=sys.stderr)
                    continue
                new = future.result()
                fresh = {identity(row) for row in new}
                rows = [row for row in rows if identity(row) not in fresh] + new
                write(rows, file)
                tell(number, len(todo), job, new, time.monotonic() - begin)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    return failed


def write(rows: list[dict], file: Path) -> None:
    """A row per line, sorted, so that results can be compared and merged by line; never a half-written file."""
    ordered = sorted(rows, key=lambda row: tuple(map(str, identity(row))))
    text = "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False, allow_nan=False) for row in ordered) + "\n]\n"
    partial = file.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)


def tell(number: int, total: int, job: Job, rows: list[dict], seconds: float) -> None:
    left = seconds / number * (total - number)
    print(f"[{number}/{total}] {job}; {left / 60:.0f} min left", flush=True)
    for case in job.cases:
        own = select(rows, method=case.method, budget=case.budget.name)
        success, psnr = (sum(row[field] for row in own) / len(own) for field in ("success", "psnr"))
        print(f"    {case.method}, {case.budget.name}: success {success:.0%}, {psnr:.1f} dB", flush=True)


def default_workers(device: str) -> int:
    """A GPU is not shared; on a CPU a process per core beats threads, which wait for each other in small layers."""
    return 1 if uses_gpu(device) else os.cpu_count() or 1


def note_machine(file: Path, device: str, workers: int, threads: int) -> None:
    """Notes beside the rows with what they were made, run by run: seconds mean nothing without it."""
    command = f"python3 dev.py bench edit {shlex.join(sys.argv[1:])}".strip()
    about = {"command": command, "workers": workers, "threads_per_worker": threads, **machine(device)}
    note = file.with_name(f"{file.stem}_machine.json")
    before = json.loads(note.read_text(encoding="utf-8")) if note.exists() else []
    runs = [*(run for run in before if run != about), about]
    note.write_text(json.dumps(runs, indent=2) + "\n", encoding="utf-8")


_bench: Bench | None = None


def start_worker(device: str, threads: int) -> None:
    """Loads the models, once per process."""
    global _bench
    _bench = Bench(device, threads)


def run_job(job: Job, strips: Path) -> list[dict]:
    return _bench.run(job, strips)


if __name__ == "__main__":
    sys.exit(main())
