"""Follows a run's events: its progress, the time of each node, and the number of tuning steps actually run."""

from __future__ import annotations

from .binding import TUNE
from .client import FINAL, Event
from .graph import title
from .tasks import Task


class Watch:
    """Follows a run's events. `state`: of the running node; `seconds` by node title; `steps`: tuning steps run."""

    def __init__(self, task: Task):
        self._graph, self._node, self._since = task.graph, None, 0.0
        self.state: dict[str, object] = {}
        self.seconds: dict[str, float] = {}
        self.steps, self._first = 0, None

    def __call__(self, event: Event) -> None:
        if event.kind == "executing" or event.kind in FINAL:
            if self._node in self._graph:
                name = title(self._graph, self._node)
                self.seconds[name] = round(self.seconds.get(name, 0.0) + event.time - self._since, 3)
            self._node, self._since = event.data.get("node") if event.kind == "executing" else None, event.time
            if self._node in self._graph:
                self.state = {"title": title(self._graph, self._node), "done": 0, "total": 0}
        elif self._node in (found := event.progress()):
            done, total = found[self._node]
            self.state = {**self.state, "done": done, "total": total}
            if self._graph.get(self._node, {}).get("class_type") == TUNE and done:
                self._first = done - 1 if self._first is None else self._first
                self.steps = max(self.steps, round(done - self._first))
