"""Many clips on many workers of unequal speed, without the machines: Ray and the schedule are the real ones, the work
is a stand-in that waits, for durations in the ratio of measured ones, made shorter so that the whole takes as long as
is wanted. Servers and workers are killed at random."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass

from batch.tasks import OK, SERVER, Outcome, Task

from .stand_in import StandIn

TUNE, EDIT = 63.0, 9.4  # seconds: the README's quickstart, tuning with inversion, and an edit
KILLED, LOST = 0.01, 0.002  # share of clips that a server, that a worker is killed with
SLOWEST, FASTEST = 0.5, 1.5
SEED = 0


@dataclass
class Simulation:
    """What came of it. Seconds; `bound`: all work divided by all speeds, without failures."""

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


class SimulatedUnit:
    """A clip: one tuning, then its edits. `ends`: how its tasks end that do not end well, first to last."""

    def __init__(self, number: int, tune: float, edits: list[float], ends: list[str]):
        self.name, self.kills, self.losses = f"clip {number}", 0, 0
        self._tune, self._edits, self._ends = tune, edits, ends
        self.tuned, self.made, self.cost = 0, 0, tune + sum(edits)

    @property
    def finished(self) -> bool:
        return self.made == len(self._edits)

    def next(self, has, put) -> Task:
        # A task that fails is one in the middle of the clip.
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

    def shorten(self, info: dict) -> None:
        return None

    def keep_snapshot(self, name: str, content: bytes) -> None: ...

    def forget_snapshot(self) -> bool:
        return False


def simulate(
    workers: int, clips: int, edits: int, seconds: float, killed: float = KILLED, lost: float = LOST
) -> Simulation:
    """`seconds`: how long it would take at best; the work is made as short as that needs. `killed`, `lost`: shares of
    clips. Starts a Ray of its own."""
    from batch.cluster import make_workers, prepare

    prepare(local=True)
    import psutil
    import ray

    from batch.schedule import Schedule

    draw = random.Random(SEED)
    speeds = [1.0] if workers == 1 else [draw.uniform(SLOWEST, FASTEST) for _ in range(workers)]
    lengths = [draw.uniform(0.5, 2.0) for _ in range(clips)]
    work = sum(length * (TUNE + edits * EDIT) for length in lengths)
    scale = seconds * sum(speeds) / work
    units = []
    for number, length in enumerate(lengths):
        chance = draw.random()
        ends = [SERVER] if chance < killed else ["exit"] if chance < killed + lost else []
        units.append(SimulatedUnit(number, length * TUNE * scale, [length * EDIT * scale] * edits, ends))
    units.sort(key=lambda unit: -unit.cost)

    ended: Counter[str] = Counter()
    events: Counter[str] = Counter()
    memory = []
    process = psutil.Process()

    def listen(event: str, **about) -> None:
        events[event] += 1
        if event in ("edit", "failed"):
            ended[about["edit"]] += 1
            if len(ended) in (clips * edits // 10, clips * edits):
                memory.append(process.memory_info().rss)
        elif event == "requeued":
            events["again " + about["kind"]] += 1

    ray.init(
        address="local",
        num_cpus=workers,
        object_store_memory=80 << 20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
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
    return Simulation(
        workers,
        clips,
        edits,
        makespan,
        seconds,
        len(ended),
        sum(count - 1 for count in ended.values()),
        clips * edits - len(ended),
        events["again server"],
        events["again lost"],
        memory[0],
        memory[-1],
    )
