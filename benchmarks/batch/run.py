"""Batch runs: two workers against one, the engine's overhead, and a simulation of many workers.

    python3 dev.py bench batch             # everything, on an otherwise idle machine: about 40 minutes
    python3 dev.py bench batch --quick     # no measurement: a little of everything, to check that it runs

Two workers of one thread each edit rendered clips with the miniature. The time counts from the first task to the last
edit, without start-up, which is reported separately. The engine's share is the part of one worker's time spent outside
the workflows' nodes: messages, files, waiting. The simulation's work is a stand-in (`simulation.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from devtools.environment import DEV, ROOT
from devtools.host import locate
from miniature.jobs import CLIPS, write_jobs

from ..results import RESULTS, write_rows
from ..runner import facts
from .simulation import simulate

FILE = RESULTS / "batch_cpu.json"
FOLDER = DEV / "batch"
STEPS, INVERT = 60, 20  # of tuning; of inversion and edit
EDITS = 3
WORKERS = (1, 8, 64)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="measure nothing, check that it runs")
    parser.add_argument("--part", choices=("real", "simulation"), nargs="+", default=["real", "simulation"])
    parser.add_argument("--workers", type=int, nargs="+", help="of the simulation (default: 1 8 64; quick: 1 4)")
    parser.add_argument("--seconds", type=float, help="that the simulation takes at best (default: 300; quick: 10)")
    options = parser.parse_args()
    rows, seconds = [], options.seconds or (10 if options.quick else 300)
    if "real" in options.part:
        rows += real(options.quick)
    if "simulation" in options.part:
        clips = 40 if options.quick else 1000
        for workers in options.workers or ((1, 4) if options.quick else WORKERS):
            result = simulate(workers, clips, 5, seconds)
            efficiency = result.bound / result.makespan
            rows.append({"part": "simulation", **asdict(result), "efficiency": efficiency})
            print(
                f"simulation, {workers} workers: {clips} clips x 5 edits in {result.makespan:.1f} s, at best "
                f"{seconds:.1f} ({efficiency:.3f}); {result.killed} servers and {result.workers_lost} workers killed; "
                f"{result.lost} edits lost, {result.twice} done twice; driver {result.memory_early / 1e6:.0f} MB after "
                f"a tenth, {result.memory_late / 1e6:.0f} MB at the end",
                flush=True,
            )
    if options.quick:
        print("Quick: these figures mean nothing.")
    else:
        write_rows(FILE, rows, facts("batch", "cpu"))
        print(f"Written to {FILE}")
    return 0


def real(quick: bool) -> list[dict]:
    """The rows of one worker and of two, and the gain of the second one."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    clips = list(CLIPS)[: 2 if quick else None]
    table = write_jobs(FOLDER, clips, edits=1 if quick else EDITS, frames=4 if quick else 8)
    graph = json.loads((ROOT / "workflows" / "api" / "quickstart_full.json").read_text(encoding="utf-8"))
    size = {"width": 64, "height": 64} if quick else {}
    changes = {
        "EI2_LoadVideo": size,
        "EI2_OneShotTune": {"steps": 3 if quick else STEPS},
        "EI2_Invert": {"steps": 2 if quick else INVERT},
    }
    for entry in graph.values():
        entry["inputs"] |= changes.get(entry["class_type"], {})
    workflow = FOLDER / "workflow.json"
    workflow.write_text(json.dumps(graph), encoding="utf-8")
    rows = [measure(table, workflow, workers) for workers in (1, 2)]
    rows[1]["efficiency"] = rows[0]["seconds"] / rows[1]["seconds"] / 2
    for row in rows:
        ratio = f", {row['efficiency']:.3f} of twice as fast" if "efficiency" in row else ""
        print(
            f"{row['workers']} workers: {len(clips)} clips in {row['seconds']:.1f} s{ratio}; start-up "
            f"{row['start_up']:.1f} s; outside the nodes {100 * row['outside_nodes']:.1f} % of the workers' time, in "
            f"the engine {100 * row['engine']:.1f} %",
            flush=True,
        )
    return rows


def measure(table: Path, workflow: Path, workers: int) -> dict:
    """A row, from the command as a user runs it. `engine`: the share of the workers' time spent outside the workers
    themselves; `outside_nodes`: outside the workflows' nodes."""
    out = FOLDER / f"results-{workers}"
    command = [sys.executable, str(ROOT / "batch"), str(table), "--workflow", str(workflow), "--out", str(out)]
    command += ["--workers", str(workers), "--cpus-per-worker", "1", "--comfyui", str(locate())]
    begun = time.time()
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    events = [json.loads(line) for line in (out / "work" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    tasks = [event for event in events if event["event"] == "task"]
    ends = [event for event in events if event["event"] in ("tuned", "edit")]
    # Counted from when all workers are ready; each worker's own time ends with its last result.
    first, last = tasks[0]["time"], ends[-1]["time"]
    times = {}
    for event in [*tasks, *ends]:
        times.setdefault(event["worker"], []).append(event["time"])
    time_of_workers = sum(max(own) - min(own) for own in times.values())
    return {
        "part": "real",
        "workers": workers,
        "clips": len({event["unit"] for event in ends}),
        "edits": sum(event["event"] == "edit" for event in ends),
        "seconds": last - first,
        "start_up": first - begun,
        "engine": 1 - sum(event["seconds"] for event in ends) / time_of_workers,
        "outside_nodes": 1 - sum(event["in_nodes"] for event in ends) / time_of_workers,
    }


if __name__ == "__main__":
    sys.exit(main())
