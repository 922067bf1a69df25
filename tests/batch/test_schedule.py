"""What the schedule does with failures, on real Ray actors that stand in for the work: nothing is lost, nothing is done
twice, and nobody idles while there is work."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from batch.base_folder import BaseFolder
from batch.cluster import make_workers, prepare
from batch.results import Results
from batch.store import LocalStore
from batch.table import read_table
from batch.tasks import INPUT, OK, WORKER, Outcome
from batch.unit import Home, make_units
from benchmarks.batch.simulation import LOCAL, SimulatedUnit, StandIn, simulate
from miniature.jobs import write_jobs

pytestmark = pytest.mark.slow


def test_servers_and_workers_that_die(ray_installed, monkeypatch):
    monkeypatch.setitem(os.environ, "RAY_worker_niceness", "0")
    result = simulate(workers=3, clips=15, edits=3, seconds=10, killed=0.25, lost=0.1)
    assert result.killed >= 1 and result.workers_lost >= 1, result
    assert (result.ended, result.lost, result.twice) == (45, 0, 0), result
    # A worker that is lost takes seconds to come back, whatever the size of the work.
    assert result.makespan < 3 * result.bound, result


def test_a_worker_that_fails_once_gets_all_files_again(ray_installed, comfyui, tmp_path, quickstart, monkeypatch):
    """Its disk was full: the clip's files did not arrive."""
    monkeypatch.setitem(os.environ, "RAY_worker_niceness", "0")
    table = write_jobs(tmp_path, ["blue_square"], edits=2, frames=4)
    rows = read_table(str(table), quickstart).rows
    results = Results(LocalStore(str(tmp_path / "out")), rows, {})
    options = SimpleNamespace(snapshot_every=50, scores=False, keep_tunes=False)
    prepare(local=True)
    import ray

    from batch.schedule import Schedule

    class Flaky:
        """Real files; the work itself is left out."""

        def __init__(self, comfyui: str):
            self.base, self.runs = BaseFolder(Path(comfyui), ()), 0

        def start(self) -> dict:
            return {"host": "here", "server": 1}

        def run(self, task):
            self.runs += 1
            try:
                if self.runs == 2:
                    raise OSError("No space left on device")
                self.base.place(task.files, ray.get)
            except OSError as error:
                return Outcome(WORKER, str(error))
            if any(not (self.base.path / name).is_file() for name in task.files):
                return Outcome(INPUT, "There is no such file.")
            return Outcome(OK, tune=b"tune") if task.tune else Outcome(OK, files=[("edit", ".mp4", b"video")])

        def look(self) -> dict:
            return {}

        def stop(self) -> None:
            self.base.remove()

    events = []
    ray.init(num_cpus=1, **LOCAL)
    try:
        units = make_units(rows, results, Home(results), options)
        workers = make_workers([str(comfyui)], False, 1, Flaky)
        schedule = Schedule(workers, units, lambda event, **about: events.append(event), rest=0.1)
        schedule.ready()
        schedule.run()
        ray.get(workers[0].stop.remote())
    finally:
        ray.shutdown()
    assert events.count("requeued") == 1 and events.count("edit") == 2 and not results.failures, events


def test_a_worker_that_always_fails_spoils_nothing(ray_installed, monkeypatch):
    """Its disk is full. Beside a good one all clips are finished; alone it ends the run, and none counts as failed."""
    monkeypatch.setitem(os.environ, "RAY_worker_niceness", "0")
    prepare(local=True)
    import ray

    from batch.schedule import FAILURES, Schedule

    class Full(StandIn):
        """Speed 0: always fails."""

        def run(self, task):
            return super().run(task) if self._speed else Outcome(WORKER, "No space left on device")

    def run(speeds: list[float]):
        events = []
        units = [SimulatedUnit(number, 0.2, [0.1], []) for number in range(FAILURES + 3)]
        listen = lambda event, **about: events.append((event, about.get("edit") or about.get("why")))
        schedule = Schedule(make_workers(speeds, False, 1, Full), units, listen, rest=0.02)
        schedule.ready()
        schedule.run()
        return schedule.stopped, [about for event, about in events if event == "edit"], dict(events)

    ray.init(num_cpus=3, **LOCAL)
    try:
        stopped, edits, events = run([0.0, 1.0])
        assert stopped is None and len(edits) == len(set(edits)) == FAILURES + 3 and "failed" not in events, events
        stopped, edits, events = run([0.0])
    finally:
        ray.shutdown()
    assert stopped == "no worker is left: it failed 6 times in a row: No space left on device"
    assert not edits and "failed" not in events, events
