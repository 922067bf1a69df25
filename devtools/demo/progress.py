"""Follows a run's events: shows progress in the terminal, and records the time of each node."""

from __future__ import annotations

import sys
import time

from batch.client import FINAL, Event

QUIET_SECONDS = 15  # between two lines about the same node if the output is not a terminal
SHORT = 0.5  # seconds; nodes faster than this get no line of their own

STAGES = ("load/encode", "tune", "invert", "reconstruct", "edit", "carry", "decode/save")
# The first match decides: a word in the node's class, or in its class or title; then the stage.
CLASS_WORDS = (
    ("Save", "decode/save"),
    ("Decode", "decode/save"),
    ("CreateVideo", "decode/save"),
    ("Load", "load/encode"),
    ("Encode", "load/encode"),
)
TITLE_WORDS = (
    ("tune", "tune"),
    ("inver", "invert"),
    ("reconstruct", "reconstruct"),
    ("carry", "carry"),
    ("edit", "edit"),
)


def stage(class_type: str, title: str) -> str:
    """The stage of the method a node belongs to, one of `STAGES`."""
    for word, name in CLASS_WORDS:
        if word in class_type:
            return name
    for word, name in TITLE_WORDS:
        if word in f"{class_type} {title}".lower():
            return name
    return "load/encode"


class Progress:
    """Pass it to `Client.run` as `on_event`. `prompt`: the workflow in API format. Afterwards `seconds` holds the time
    per node id."""

    def __init__(self, prompt: dict):
        self._prompt = prompt
        self._node: str | None = None
        self._start = self._spoke = 0.0
        self._live = sys.stdout.isatty()
        self.seconds: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        if event.kind == "executing" or event.kind in FINAL:
            self._finish(event)
            self._node = event.data.get("node") if event.kind == "executing" else None
            self._start, self._spoke = event.time, time.monotonic()
            if self._live and self._node is not None:
                self._show(self.title(self._node))
        elif self._node in event.progress():
            done, total = event.progress()[self._node]
            if total > 1:
                self._step(done, total, event.time)

    def title(self, node: str) -> str:
        """The node's title in the workflow, or its class."""
        entry = self._prompt.get(node, {})
        return entry.get("_meta", {}).get("title") or entry.get("class_type", node)

    def stages(self) -> dict[str, float]:
        """Seconds per stage, every one of `STAGES`."""
        sums = dict.fromkeys(STAGES, 0.0)
        for node, seconds in self.seconds.items():
            sums[stage(self._prompt.get(node, {}).get("class_type", ""), self.title(node))] += seconds
        return sums

    def _finish(self, event: Event) -> None:
        if self._node is None:
            return
        seconds = event.time - self._start
        self.seconds[self._node] = self.seconds.get(self._node, 0.0) + seconds
        self._show("")
        if seconds >= SHORT or event.kind == "execution_error":
            print(f"  {self.title(self._node)}: {_clock(seconds)}", flush=True)

    def _step(self, done: float, total: float, now: float) -> None:
        text = f"{self.title(self._node)}: {done:.0f} of {total:.0f}"
        if done:
            text += f", {_clock((now - self._start) / done * (total - done))} left"
        if self._live:
            self._show(text)
        elif time.monotonic() - self._spoke >= QUIET_SECONDS:
            self._spoke = time.monotonic()
            print(f"  {text}", flush=True)

    def _show(self, text: str) -> None:
        """Replaces the terminal's last line."""
        if self._live:
            print(f"\r\033[K  {text}" if text else "\r\033[K", end="", flush=True)


def _clock(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
