"""A stand-in for a worker: it waits as long as the work would take, at its own speed, and fails where it is told to.
What gives it work, requeues and counts is the batch run's own."""

from __future__ import annotations

import os
import threading
import time

from batch.tasks import CANCELLED, OK, SERVER, Outcome, Task

ANSWER = 1024  # bytes that a task gives back


class StandIn:
    """`speed`: how many seconds of work it does in one."""

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
