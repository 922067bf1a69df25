"""The display of a batch run: a progress bar in a terminal, plain lines elsewhere; and the log."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

QUIET = 15.0  # seconds between two plain lines that only report progress


class Progress:
    """The schedule's listener. `total`: edits; `done`: edits finished before; `log`: a file for all events, or None."""

    def __init__(self, total: int, done: int, log: Path | None = None):
        self.total, self.finished, self.failed = total, 0, 0
        self.done_before = done
        self._states: dict[int, str] = {}
        self._workers: set[int] = set()
        self._start = self._said = time.monotonic()
        self._log = None
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            self._log = open(log, "a", encoding="utf-8")
        self._bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=done, unit="edit", dynamic_ncols=True)

    def __call__(self, event: str, **about) -> None:
        if event != "state":
            self._note(event, about)
        worker, unit = about.get("worker"), about.get("unit")
        if event == "ready":
            self._workers.add(worker)
            self.say(f"worker {worker} is ready on {about.get('host')} (ComfyUI is process {about.get('server')})")
        elif event == "lost":
            self._workers.discard(worker)
            self.say(f"worker {worker} is lost: {about.get('why')}")
        elif event == "task":
            self._states[worker] = about["task"]
        elif event == "state" and about.get("title"):
            share = f" {about['done']:.0f}/{about['total']:.0f}" if about.get("total") else ""
            self._states[worker] = f"{unit}: {about['title']}{share}"
        elif event == "tuned":
            self.say(f"{unit}: tuned in {about['seconds']:.1f} s on worker {worker}", only_plain=True)
        elif event == "edit":
            self.finished += 1
            self._advance()
        elif event == "failed":
            self.failed += 1
            self.say(f"{unit}: failed ({about['kind']}): {_first(about['why'])}")
            self._advance()
        elif event == "requeued":
            self.say(f"{unit}: once more, {_first(about['why'])}")
        self._refresh(event)

    def say(self, text: str, only_plain: bool = False) -> None:
        """Prints a separate line."""
        if self._bar is not None:
            if not only_plain:
                self._bar.write(text, file=sys.stderr)
        else:
            print(text, flush=True)
            self._said = time.monotonic()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._log is not None:
            self._log.close()
            self._log = None

    def _advance(self) -> None:
        if self._bar is not None:
            self._bar.update(1)
        else:
            self.say(self._summary())

    def _refresh(self, event: str) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(f"{len(self._workers)} workers, {self.failed} failed", refresh=event != "state")
        elif event == "state" and time.monotonic() - self._said >= QUIET:
            self.say(self._summary() + "; " + ", ".join(self._states[one] for one in sorted(self._states)))

    def _summary(self) -> str:
        seconds, made = time.monotonic() - self._start, self.finished + self.failed
        left = self.total - self.done_before - made
        rate = f", {3600 * made / seconds:.0f} an hour, {_clock(seconds / made * left)} left" if made else ""
        return (
            f"{self.done_before + made} of {self.total} edits{rate}, {len(self._workers)} workers, {self.failed} failed"
        )

    def _note(self, event: str, about: dict) -> None:
        if self._log is not None:
            try:
                self._log.write(json.dumps({"time": round(time.time(), 3), "event": event, **about}) + "\n")
                self._log.flush()
            except OSError:  # a full disk: writing the results will report it
                self._log = None


def _first(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else ""


def _clock(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"
