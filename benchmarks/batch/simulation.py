"""Simulates many clips on many workers of unequal speed. Ray and the schedule are real. The work is simulated by
waiting, with durations in the ratio of measured ones. Servers and workers are killed at random."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass

from batch.tasks import CANCELLED, OK, SERVER, Outcome, Task

TUNE, EDIT = 63.0, 9.4  # seconds: the README's quickstart, tuning with inversion, and an edit
KILLED, LOST = 0.01, 0.002  # shares of clips during which a server or a worker is killed
SLOWEST, FASTEST = 0.5, 1.5
ANSWER = 1024  # bytes that a task returns
SEED = 0
LOCAL = {  # of `ray.init`: a small Ray of one's own
    "address": "local",
    "object_store_memory": 80 << 20,
    "include_dashboard": False,
    "log_to_driver": False,
    "logging_level": "ERROR",
}


@dataclass
class Simulation:
    """The result. `makespan` in seconds; `bound`: all work divided by all speeds, without failures."""

    workers: int
    clips: int
    edits: int
    makespan: float
    bound: float
    ended: int
    twice: int
    lost: int
    killed: int
    workers_lost: int
    memory_early: int
    memory_late: int


class StandIn:
    """A worker that waits as long as the work would take. `speed`: seconds of work done per second."""

    def __init__(self, speed: float):
        self._speed, self._cancelled, self._state = speed, threading.Event(), {}

    def start(self) -> dict:
        return {"host": "stand-in", "server": os.getpid()}

    def run(self, task: Task) -> Outcome:
        work, end = task.graph["seconds"], task.graph["end"]
        start = time.monotonic()
        self._cancelled.clear()
        self._state = {"task": task.name, "title": "work", "done": 0, "total": 1}
        cancelled = self._cancelled.wait(work / self._speed * (1 if end == OK else 0.5))
        if end == "exit":
            os._exit(1)
        kind = CANCELLED if cancelled else end
        seconds = time.monotonic() - start
        answer = [("edit", ".bin", bytes(ANSWER))] if kind == OK else []
        return Outcome(kind, "it was killed" if kind == SERVER else "", answer, seconds=seconds)

    def look(self) -> dict:
        return self._state

    def cancel(self) -> None:
        self._cancelled.set()

    def take_snapshot(self) -> None:
        return None


class SimulatedUnit:
    """A clip: one tuning, then its edits. `ends`: how its failing tasks end, in order."""

    def __init__(self, number: int, tune: float, edits: list[float], ends: list[str]):
        self.name, self.kills, self.losses = f"clip {number}", 0, 0
        self._tune, self._edits, self._ends = tune, edits, ends
        self.tuned, self.made, self.cost = 0, 0, tune + sum(edits)

    @property
    def finished(self) -> bool:
        return self.made == len(self._edits)

    def next(self, has, put) -> Task:
        # The failing task is in the middle of the clip.
        fails = self._ends and (self.made == len(self._edits) // 2)
        end = self._ends.pop(0) if fails else OK
        if not self.tuned:
            return Task(f"{self.name}: tune", {"seconds": self._tune, "end": end}, tune="file")
        return Task(f"{self.name}: {self.made}", {"seconds": self._edits[self.made], "end": end})

    def accept(self, outcome: Outcome) -> str | None:
        if not self.tuned:
            self.tuned = 1
            return None
        self.made += 1
        return f"{self.name}, edit {self.made}"

    def fail(self, kind: str, outcome: Outcome) -> list[str]:
        raise AssertionError("no stand-in ends so")

    def give_up(self, kind: str, outcome: Outcome) -> list[str]:
        keys = [f"{self.name}, edit {number + 1}" for number in range(self.made, len(self._edits))]
        self.made = len(self._edits)
        return keys

    def shorten(self) -> None: ...

    def keep_snapshot(self, content: bytes) -> None: ...

    def forget_snapshot(self) -> bool:
        return False


def simulate(
    workers: int, clips: int, edits: int, seconds: float, killed: float = KILLED, lost: float = LOST
) -> Simulation:
    """`seconds`: the duration without failures and waits; the work is scaled to it. `killed`, `lost`:
    shares of clips. Starts a Ray of its own."""
    from batch.cluster import make_workers, prepare

    prepare(local=True)
    import psutil
    import ray

    from batch.schedule import Schedule

    draw = random.Random(SEED)
    speeds = [1.0] if workers == 1 else [draw.uniform(SLOWEST, FASTEST) for _ in range(workers)]
    lengths = [draw.uniform(0.5, 2.0) for _ in range(clips)]
    scale = seconds * sum(speeds) / sum(length * (TUNE + edits * EDIT) for length in lengths)
    units = []
    for number, length in enumerate(lengths):
        chance = draw.random()
        ends = [SERVER] if chance < killed else ["exit"] if chance < killed + lost else []
        units.append(SimulatedUnit(number, length * TUNE * scale, [length * EDIT * scale] * edits, ends))
    units.sort(key=lambda unit: -unit.cost)
    ended, events, memory, process = Counter(), Counter(), [], psutil.Process()

    def listen(event: str, **about) -> None:
        if event in ("edit", "failed"):
            ended[about["edit"]] += 1
            if len(ended) in (clips * edits // 10, clips * edits):
                memory.append(process.memory_info().rss)
        elif event == "requeued":
            events[about["kind"]] += 1

    ray.init(num_cpus=workers, **LOCAL)
    try:
        schedule = Schedule(make_workers(speeds, False, 1, StandIn), units, listen)
        schedule.ready()
        while not all(slot.state == "idle" for slot in schedule.slots):  # start-up is not counted
            schedule._wait()
        start = time.monotonic()
        schedule.run()
        makespan = time.monotonic() - start
    finally:
        ray.shutdown()
    counts = {"ended": len(ended), "twice": ended.total() - len(ended), "lost": clips * edits - len(ended)}
    counts |= {"killed": events["server"], "workers_lost": events["lost"]}
    return Simulation(
        workers, clips, edits, makespan, seconds, **counts, memory_early=memory[0], memory_late=memory[-1]
    )
