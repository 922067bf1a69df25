"""Fetches the snapshots that a worker makes while it tunes."""

from __future__ import annotations

import time

import ray
from ray.exceptions import RayError

LAST = 30.0  # seconds that the last snapshot of a tuning run that ended may take


class Snapshots:
    """Those of one worker. `actor`: its handle; `seconds`: the minimum time between two that are fetched."""

    def __init__(self, actor: object, seconds: float):
        self._actor, self._seconds = actor, seconds
        self._reference, self._mark, self._at = None, None, 0.0

    def begin(self) -> None:
        """Call it when a task begins."""
        self._mark, self._at = None, time.monotonic()

    def drop(self) -> None:
        """Forgets the snapshot that is being fetched."""
        self._reference = None

    def note(self, mark: object) -> None:
        """Fetches the latest snapshot if it is new and enough time has passed. `mark`: of the latest, or None."""
        due = time.monotonic() - self._at >= self._seconds
        if mark and mark != self._mark and self._reference is None and due:
            self._reference, self._mark, self._at = self._actor.take_snapshot.remote(), mark, time.monotonic()

    def fetched(self) -> bytes | None:
        """A snapshot that has arrived, once."""
        if self._reference is None or not ray.wait([self._reference], timeout=0)[0]:
            return None
        reference, self._reference = self._reference, None
        return got(reference)

    def last(self) -> bytes | None:
        """Fetches the latest snapshot of a tuning run that ended early."""
        return got(self._actor.take_snapshot.remote(), LAST)


def got(reference: object, timeout: float = 5) -> object:
    """The result of a call, or None if it failed or takes longer than `timeout` seconds."""
    try:
        return ray.get(reference, timeout=timeout)
    except RayError:
        return None
