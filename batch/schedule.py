"""Assigns clips to workers and handles failures. Ray handles placement, restarts and transport.

Workers pull: when a worker has finished a clip, it gets the longest of the remaining ones. A clip stays with its worker
until all its edits are done or the worker is lost.
"""

from __future__ import annotations

import errno
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from .base_folder import TUNES
from .snapshots import Snapshots, got
from .tasks import CANCELLED, INPUT, LOST, MEMORY, OK, SERVER, WORKER, Outcome, Task

POLL = 0.5  # seconds between polls of the workers
KILLS = 2  # servers a clip may kill before it is given up
TRIES = 3  # workers that may be lost with a clip before it is given up
GRACE = 60.0  # seconds for running tasks to end after a cancel
STARTS = 2  # consecutive failed starts after which a worker is given up
FAILURES = 6  # consecutive tasks a worker may fail by itself, with a full disk for instance, before it is given up
REST = 20.0  # seconds that a worker gets nothing after such a failure, times their number: others take its clips
QUARANTINE, GIVEN_UP = "quarantine", "given up"
FULL = (errno.ENOSPC, errno.EDQUOT) if hasattr(errno, "EDQUOT") else (errno.ENOSPC,)


class Unit(Protocol):
    """The interface of `ClipUnit`; the benchmark has its own."""

    name: str
    kills: int
    losses: int
    finished: bool

    def next(self, has: set[str], put: Callable[[bytes], object]) -> Task: ...
    def accept(self, outcome: Outcome) -> str | None: ...
    def fail(self, kind: str, outcome: Outcome) -> list[str]: ...
    def give_up(self, kind: str, outcome: Outcome) -> list[str]: ...
    def shorten(self) -> int | None: ...
    def keep_snapshot(self, content: bytes) -> None: ...
    def forget_snapshot(self) -> bool: ...


class Listener(Protocol):
    """Gets all events in order. `event`: ready, task, state, snapshot, tuned, edit, failed, requeued, lost."""

    def __call__(self, event: str, **about) -> None: ...


@dataclass
class Slot:
    """A worker. `reference`: of the running call; `state`: starting, idle, busy or gone; `has`: the files it has;
    `failures`: tasks in a row that it failed by itself; `rests_until`: when it gets work again (monotonic)."""

    number: int
    actor: object
    snapshots: Snapshots
    state: str = "starting"
    reference: object = None
    unit: Unit | None = None
    task: Task | None = None
    look: object = None
    has: set[str] = field(default_factory=set)
    about: dict = field(default_factory=dict)
    failed_starts: int = 0
    failures: int = 0
    rests_until: float = 0.0


class Schedule:
    """`actors`: handles of workers; `units`: the longest first; `patience`: seconds without any worker after which the
    run ends; `snapshot_seconds`: the minimum time between two snapshots that are fetched; `rest`: see `REST`."""

    def __init__(
        self,
        actors: list,
        units: list,
        listener: Listener,
        patience: float = 600,
        snapshot_seconds: float = 60,
        rest: float = REST,
    ):
        self.slots = [Slot(number, actor, Snapshots(actor, snapshot_seconds)) for number, actor in enumerate(actors)]
        self.queue: deque = deque(units)
        self.listener = listener
        self.patience = patience
        self.rest = rest
        self.stopped: str | None = None  # why no new work is assigned
        self._cancelled_at: float | None = None
        self._alive_at = time.monotonic()

    def stop(self, why: str) -> None:
        """Assigns no more work and cancels running tasks; may be called from a signal handler."""
        self.stopped = self.stopped or why

    def ready(self) -> dict:
        """Starts the workers and waits for the first; returns its description. Raises `RuntimeError` if none starts."""
        for slot in self.slots:
            self._start(slot)
        while True:
            idle = next((slot for slot in self.slots if slot.state == "idle"), None)
            if idle is not None:
                return idle.about
            if all(slot.state == "gone" for slot in self.slots):
                raise RuntimeError(str(self.slots[0].about.get("why", "no worker could be started")))
            if self.stopped or time.monotonic() - self._alive_at > self.patience:
                raise RuntimeError(self.stopped or f"no worker was ready within {self.patience:.0f} s")
            self._wait()

    def run(self) -> None:
        """Returns when everything is done or nothing more can be done; `stopped` then says why."""
        while True:
            if self.stopped is None:
                self._give_out()
            busy = [slot for slot in self.slots if slot.state == "busy"]
            if not busy and (not self.queue or self.stopped):
                return
            if self.stopped:
                if self._cancelled_at is None:
                    self._cancelled_at = time.monotonic()
                    for slot in busy:
                        self._cancel(slot)
                elif time.monotonic() - self._cancelled_at > GRACE:
                    return
            self._wait()
            self._look_around()
            if any(slot.state in ("busy", "idle") for slot in self.slots):
                self._alive_at = time.monotonic()
            elif all(slot.state == "gone" for slot in self.slots):
                self.stop("no worker is left: " + str(self.slots[-1].about.get("why", "")))
            elif time.monotonic() - self._alive_at > self.patience:
                self.stop(f"no worker has been ready for {self.patience:.0f} s")

    def _give_out(self) -> None:
        for slot in self.slots:
            if slot.state == "idle" and self.queue and time.monotonic() >= slot.rests_until:
                slot.unit = self.queue.popleft()
                self._next_task(slot)

    def _next_task(self, slot: Slot) -> None:
        """Assigns the next task of the slot's clip. A clip whose files are gone fails."""
        while slot.unit is not None and not slot.unit.finished and self.stopped is None:
            try:
                slot.task = slot.unit.next(slot.has, ray.put)
                break
            except OSError as error:
                try:
                    self._told(slot.unit.fail(INPUT, Outcome(INPUT, str(error))), slot, INPUT, str(error))
                except OSError as full:
                    self._cannot_write(full)
        else:
            slot.unit, slot.task, slot.state = None, None, "idle"
            return
        slot.reference = slot.actor.run.remote(slot.task)
        slot.has = set(slot.task.files)
        slot.state = "busy"
        slot.snapshots.begin()
        self._tell("task", slot, task=slot.task.name)

    def _wait(self) -> None:
        references = [slot.reference for slot in self.slots if slot.reference is not None]
        if not references:
            time.sleep(POLL)
            return
        done, _ = ray.wait(references, num_returns=1, timeout=POLL)
        if done:
            done, _ = ray.wait(references, num_returns=len(references), timeout=0)
        for slot in self.slots:
            if slot.reference in done:
                reference, slot.reference = slot.reference, None
                (self._started if slot.state == "starting" else self._ended)(slot, reference)

    def _start(self, slot: Slot) -> None:
        slot.state, slot.has, slot.look = "starting", set(), None
        slot.snapshots.drop()
        slot.reference = slot.actor.start.remote()

    def _started(self, slot: Slot, reference: object) -> None:
        try:
            slot.about, slot.failed_starts = ray.get(reference), 0
        except RayError as error:
            why = str(error.cause if isinstance(error, RayTaskError) and error.cause else error).strip()
            slot.failed_starts += 1
            slot.about = {}
            if slot.failed_starts < STARTS:
                self._start(slot)
            else:
                self._give_up(slot, why)
            return
        slot.state = "idle"
        self._tell("ready", slot)

    def _ended(self, slot: Slot, reference: object) -> None:
        try:
            outcome = ray.get(reference)
        except RayActorError as error:
            outcome = Outcome(LOST, f"the worker was lost ({type(error).__name__})")
        except RayError as error:
            outcome = Outcome(WORKER, str(error))
        if outcome.kind not in (OK, INPUT, MEMORY):
            slot.has = set()  # it may not have got as far as placing the task's files
        unit, task = slot.unit, slot.task
        slot.about |= outcome.about
        try:
            self._settle(slot, unit, task, outcome)
        except OSError as error:
            self._cannot_write(error)
            self.queue.appendleft(unit)
            slot.unit = None
        slot.failures = slot.failures + 1 if outcome.kind == WORKER else 0
        if outcome.kind in (LOST, SERVER):
            self._start(slot)
        elif slot.failures >= FAILURES:
            self._give_up(slot, f"it failed {slot.failures} times in a row: {outcome.sentence}")
        elif slot.unit is not None and not slot.unit.finished and self.stopped is None:
            self._next_task(slot)
        else:
            slot.unit, slot.task, slot.state = None, None, "idle"
            slot.rests_until = time.monotonic() + self.rest * slot.failures

    def _give_up(self, slot: Slot, why: str) -> None:
        slot.unit, slot.task, slot.state = None, None, "gone"
        slot.about["why"] = why
        self._tell("lost", slot, why=why, for_good=True)

    def _settle(self, slot: Slot, unit: Unit, task: Task, outcome: Outcome) -> None:
        """Raises `OSError` if a result cannot be written."""
        if outcome.kind == OK:
            if task.tune:
                slot.has.add(f"{TUNES}/{task.tune}")
            done = unit.accept(outcome)
            about = {"steps": outcome.steps} if done is None else {"edit": done}
            about |= {"seconds": round(outcome.seconds, 3), "in_nodes": round(sum(outcome.stages.values()), 3)}
            self._tell("tuned" if done is None else "edit", slot, **about)
        elif outcome.kind == CANCELLED:
            self._keep_last(slot)
            slot.unit = None
        elif outcome.kind == MEMORY and (length := unit.shorten()):
            why = f"{outcome.sentence} Retrying in windows of {length} frames."
            self._tell("requeued", slot, why=why, kind=MEMORY)
        elif outcome.kind == INPUT and unit.forget_snapshot():
            self._tell("requeued", slot, why=f"{outcome.sentence} Tuning again from the beginning.", kind=INPUT)
        elif outcome.kind in (INPUT, MEMORY):
            self._told(unit.fail(outcome.kind, outcome), slot, outcome.kind, outcome.sentence)
        else:
            self._requeue(slot, unit, outcome)

    def _requeue(self, slot: Slot, unit: Unit, outcome: Outcome) -> None:
        """A clip whose server was killed or whose worker was lost returns to the front of the queue, one whose worker
        failed to its end, for the others; or it is given up."""
        if outcome.kind == SERVER:
            unit.kills += 1
            self._keep_last(slot)
        else:
            unit.losses += 1
        if unit.kills >= KILLS:
            outcome.sentence = f"It killed {unit.kills} servers and will not be retried. {outcome.sentence}"
            self._told(unit.give_up(QUARANTINE, outcome), slot, QUARANTINE, outcome.sentence)
        elif unit.losses >= TRIES:
            outcome.sentence = f"Tried {unit.losses} times. {outcome.sentence}"
            self._told(unit.give_up(GIVEN_UP, outcome), slot, GIVEN_UP, outcome.sentence)
        else:
            (self.queue.append if outcome.kind == WORKER else self.queue.appendleft)(unit)
            self._tell("requeued", slot, why=outcome.sentence.splitlines()[0], kind=outcome.kind)
        slot.unit = None

    def _look_around(self) -> None:
        """Polls busy workers for progress, and fetches new snapshots."""
        for slot in self.slots:
            if slot.state != "busy":
                slot.look = None
                slot.snapshots.drop()
                continue
            if slot.look is None:
                slot.look = slot.actor.look.remote()
            elif ray.wait([slot.look], timeout=0)[0]:
                state = got(slot.look) or {}
                slot.look = None
                if slot.state == "busy" and state.get("task") == slot.task.name:
                    self._tell("state", slot, **{key: state.get(key) for key in ("title", "done", "total", "server")})
                    if slot.task.tune:
                        slot.snapshots.note(state.get("snapshot"))
            self._keep(slot, slot.snapshots.fetched())

    def _keep_last(self, slot: Slot) -> None:
        """Keeps the latest snapshot of a tuning run that ended early."""
        if slot.task is not None and slot.task.tune:
            self._keep(slot, slot.snapshots.last())

    def _keep(self, slot: Slot, snapshot: bytes | None) -> None:
        if not snapshot or slot.unit is None:
            return
        try:
            slot.unit.keep_snapshot(snapshot)
            self._tell("snapshot", slot)
        except OSError as error:
            self._cannot_write(error)

    def _cannot_write(self, error: OSError) -> None:
        full = "; free some space first" if error.errno in FULL else ""
        self.stop(f"the results cannot be written: {error}{full}")

    def _cancel(self, slot: Slot) -> None:
        slot.actor.cancel.remote()

    def _told(self, keys: list[str], slot: Slot, kind: str, why: str) -> None:
        for key in keys:
            self._tell("failed", slot, edit=key, kind=kind, why=why)

    def _tell(self, event: str, slot: Slot, **about) -> None:
        unit = slot.unit.name if slot.unit else None
        where = {key: slot.about.get(key) for key in ("host", "server")}
        self.listener(event, worker=slot.number, unit=unit, **{**where, **about})
