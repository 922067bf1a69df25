"""EditBench: every method edits every clip, and the edits are scored against the rendered correct result.

Rows are written after every job; a run that was stopped continues from them.
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

from benchmarks.bench import Bench
from benchmarks.machine import machine, uses_gpu
from benchmarks.results import RESULTS, write_rows
from benchmarks.runner import command_parser
from devtools.environment import DEV, SetupError
from devtools.host import locate

from . import report, sheets
from .clips import clips_of
from .jobs import INPUTS, Job, plan
from .rows import identity, known, load, select
from .work import Work

STRIPS = DEV / "editbench"


def arguments() -> argparse.Namespace:
    parser = command_parser("edit", __doc__)
    parser.add_argument("--split", choices=("test", "dev"), default="dev", help="which clips (default: dev)")
    parser.add_argument("--quick", action="store_true", help="a few steps on two tiny clips: does everything run?")
    parser.add_argument("--workers", type=count, help="processes (default: one per core on a CPU, one on a GPU)")
    parser.add_argument("--method", action="append", dest="methods", metavar="NAME", help="only this one; repeatable")
    parser.add_argument(
        "--clips", type=count, metavar="N", help="only the first N; every 11 show all motions of things"
    )
    text = "folder for the results (default: benchmarks/results); only one run at a time may write there"
    parser.add_argument("--output", type=Path, help=text)
    return parser.parse_args()


def count(text: str) -> int:
    """A whole number above zero, for argparse."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so stopping the service also stops the processes
    split = "quick" if options.quick else options.split
    folder = (options.output or (STRIPS / "quick-results" if options.quick else RESULTS)).resolve()
    file = folder / f"editbench_{split}.json"
    try:
        jobs = chosen(plan(split), options.methods, options.clips)
        if options.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("There is no CUDA device here: choose --device cpu.")
        if options.quick:
            file.unlink(missing_ok=True)  # a quick run starts from scratch
        locate()  # raises a clear error here, before the processes start
        # a GPU is not shared; on a CPU, processes beat threads, which wait for each other in small layers
        workers = options.workers or (1 if uses_gpu(options.device) else os.cpu_count() or 1)
        failed = execute(jobs, file, STRIPS / split, options.device, workers)
    except KeyboardInterrupt:
        print("\nStopped; the same command continues from here.", file=sys.stderr)
        return 130
    except (SetupError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    if file.exists():
        print(*report.write(file), sep="\n")
        try:
            print(*sheets.write(load(file), clips_of(split), STRIPS / split, folder, file.stem), sep="\n")
        except (OSError, ValueError) as error:  # rows from elsewhere lack frames, partial runs lack methods
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
    """Runs the cases whose rows are missing from the results file, or have other inputs, and adds their rows. Returns
    the number of jobs that failed; the others continue."""
    rows = load(file) if file.exists() else []
    done = {identity(row): {name: row.get(name) for name in INPUTS} for row in rows}
    todo = [job for job in (job.missing(done) for job in jobs) if job.cases]
    total, left = (sum(len(job.inputs()) for job in some) for some in (jobs, todo))
    print(f"{total} edits, {total - left} of them done, {len(todo)} jobs to do, {workers} processes", flush=True)
    if not todo:
        return 0
    threads = max(1, (os.cpu_count() or 1) // workers)
    file.parent.mkdir(parents=True, exist_ok=True)
    note_machine(file, device, workers, threads)
    begin, failed, context = time.monotonic(), 0, multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=start_worker, initargs=(device, threads)) as pool:
        futures = {pool.submit(run_job, job, strips): job for job in todo}
        try:
            for number, future in enumerate(as_completed(futures), start=1):
                job, error = futures[future], future.exception()
                if isinstance(error, (RuntimeError, ValueError)) and not isinstance(error, BrokenExecutor):
                    failed += 1
                    print(f"{job} failed: {error}", file=sys.stderr)
                    continue
                new = {identity(row): row for row in future.result()}
                rows = [row for row in rows if identity(row) not in new] + list(new.values())
                write_rows(file, sorted(rows, key=lambda row: tuple(map(str, identity(row)))))
                minutes = (time.monotonic() - begin) / number * (len(todo) - number) / 60
                print(f"[{number}/{len(todo)}] {job}; {minutes:.0f} min left", flush=True)
                print_scores(job, list(new.values()))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    return failed


def print_scores(job: Job, rows: list[dict]) -> None:
    for case in job.cases:
        own = select(rows, method=case.method, budget=case.budget.name)
        values = ", ".join(f"{row['edit']} {row['success']:.0%}" for row in own if known(row, "success"))
        print(f"    {case.method}, {case.budget.name}: success {values}", flush=True)


def note_machine(file: Path, device: str, workers: int, threads: int) -> None:
    """Records the command and the machine of each run in a file next to the rows."""
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
    _bench = Bench(device, threads, exact=True)  # the same rows on every CPU


def run_job(job: Job, strips: Path) -> list[dict]:
    """The job's rows; the edited frames go to the folder `strips`."""
    with torch.inference_mode():
        work = Work(_bench, job)
        return [row for case in job.cases for row in work.rows(case, strips)]


if __name__ == "__main__":
    sys.exit(main())
