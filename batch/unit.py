"""A clip and its edits: the unit of work, processed by one worker."""

from __future__ import annotations

import time
from collections.abc import Callable

from . import plan
from .base_folder import SNAPSHOTS, TUNES
from .graph import Graph
from .results import Results, parse_decibels, parse_scores
from .sources import Source
from .store import WORK
from .table import Row
from .tasks import OK, Outcome, Task

Put = Callable[[bytes], object]
SNAPSHOT_FILE = "snapshot-{}.safetensors"  # in the results and at the worker


class Home:
    """Keeps tunes and snapshots in the results folder until their clip is finished."""

    def __init__(self, results: Results):
        self.store = results.store
        self._tunes = {name.removeprefix(f"{WORK}/") for name in self.store.names(WORK, ".safetensors")}

    def has(self, key: str) -> bool:
        return plan.TUNE_FILE.format(key) in self._tunes

    def keep_tune(self, key: str, content: bytes) -> None:
        """Raises `OSError`."""
        self.store.write(f"{WORK}/{plan.TUNE_FILE.format(key)}", content)
        self._tunes.add(plan.TUNE_FILE.format(key))

    def tune(self, key: str) -> bytes:
        """Raises `OSError`."""
        content = self.store.read(f"{WORK}/{plan.TUNE_FILE.format(key)}")
        if content is None:
            raise FileNotFoundError(f"the tune {key} is missing from {WORK}/ of the results")
        return content

    def keep_snapshot(self, key: str, content: bytes) -> None:
        """Replaces the snapshot; the last one stays if that fails. Raises `OSError`."""
        self.store.write(f"{WORK}/{SNAPSHOT_FILE.format(key)}", content)

    def snapshot(self, key: str) -> bytes | None:
        """The latest snapshot's content, or None. Raises `OSError`."""
        return self.store.read(f"{WORK}/{SNAPSHOT_FILE.format(key)}")

    def drop(self, key: str, tune: bool) -> None:
        """Deletes the snapshot, and the tune if `tune`."""
        self.store.delete(f"{WORK}/{SNAPSHOT_FILE.format(key)}")
        if tune:
            self.store.delete(f"{WORK}/{plan.TUNE_FILE.format(key)}")
            self._tunes.discard(plan.TUNE_FILE.format(key))


class ClipUnit:
    """The unfinished edits of one clip. Rows with the same tuning are adjacent."""

    def __init__(self, rows: list[Row], results: Results, home: Home, options):
        first = rows[0]
        self.name, self.clip = first.clip.stem, first.clip
        self.results, self.home, self.options = results, home, options
        order = {}
        keys = lambda row: (*self._tunes(row.graph).values(), plan.inversion_key(row.graph))
        for row in rows:
            order.setdefault(keys(row), len(order))
        self.rows = sorted(rows, key=lambda row: order[keys(row)])
        self.cost = plan.cost(first.graph, first.frames, first.clip.size, len(rows))
        self.kills = self.losses = 0
        self.tuned: dict[str, int] = {}  # steps of tuning done in this run, by key
        self._windows: dict[str, tuple[Graph, int]] = {}  # by row key
        self._decibels: dict[str, float] = {}  # by inversion
        self._used: set[str] = set()
        self._waiting: str | None = None  # the tune in progress
        self._since = 0.0  # when its first task was assigned
        self._resumed = False  # whether from a snapshot
        for row in results.rows:
            record = results.records.get(row.key)
            if record and row.clip == self.clip and record.get("reconstruction_db") is not None:
                self._decibels[plan.inversion_key(row.graph)] = record["reconstruction_db"]

    @property
    def finished(self) -> bool:
        return not self.rows

    def next(self, has: set[str], put: Put) -> Task:
        """The next task. `has`: the files that the worker has; `put`: makes a reference to bytes."""
        row, graph = self.rows[0], self._graph(self.rows[0])
        tunes = self._tunes(graph)
        self._since = self._since or time.time()
        files: dict[str, object] = {}
        for source in row.files.values():
            files[f"input/{source.name}"] = self._fetched(source, has, put)
        done = {node: key for node, key in tunes.items() if self.home.has(key)}
        self._used |= set(tunes.values())
        for key in done.values():
            path = f"{TUNES}/{plan.TUNE_FILE.format(key)}"
            files[path] = None if path in has else [put(self.home.tune(key))]
        missing = next((node for node in tunes if node not in done), None)
        if missing is not None:
            key = self._waiting = tunes[missing]
            snapshot, name = self.home.snapshot(key), None
            self._resumed = snapshot is not None
            if snapshot is not None:
                name = SNAPSHOT_FILE.format(key)
                files[f"{SNAPSHOTS}/{name}"] = [put(snapshot)]
            run = plan.tune_run(graph, missing, done, key, self.options.snapshot_every, name)
            file, models = plan.TUNE_FILE.format(key), tuple(plan.models(run))
            return Task(f"{self.name}: tune", run, files, tune=file, models=models)
        self._waiting, self._resumed = None, False
        first = plan.inversion_key(graph) not in self._decibels or self.results.source(row) is None
        run = plan.edit_run(graph, done, f"batch-{row.key}-{self.kills + self.losses}", first, self.options.scores)
        return Task(
            f"{self.name}: {row.values.get('edit_prompt') or f'line {row.line}'}",
            run.graph,
            files,
            run.collect,
            run.texts,
            models=tuple(plan.models(run.graph)),
            scored=run.scored,
        )

    def accept(self, outcome: Outcome) -> str | None:
        """Stores the result of the last task; returns the key of the finished edit, or None for a tune. Raises
        `OSError` if it cannot be written."""
        assert outcome.kind == OK
        row, graph = self.rows[0], self._graph(self.rows[0])
        if self._waiting is not None:
            key, self._waiting = self._waiting, None
            self.tuned[key] = self.tuned.get(key, 0) + outcome.steps
            self.home.keep_tune(key, outcome.tune)
            self.home.drop(key, tune=False)
            return None
        for what, ending, content in outcome.files:
            if what == plan.SOURCE:
                self.results.write_source(row, ending, content)
        inversion = plan.inversion_key(graph)
        decibels = parse_decibels(outcome.texts.get(plan.RECONSTRUCTION, ""))
        if decibels is not None:
            self._decibels[inversion] = decibels
        keys = self._tunes(graph).values()
        windows = self._windows.get(row.key)
        self.results.write(
            row,
            [file for file in outcome.files if file[0] != plan.SOURCE],
            {
                "seconds": round(outcome.seconds, 2),
                "stages": outcome.stages,
                "models": outcome.models,
                "tunes": list(keys),
                "tuning_steps": sum(self.tuned.get(key, 0) for key in keys),
                "scores": parse_scores(outcome.texts.get(plan.SCORES, "")),
                "reconstruction_db": self._decibels.get(inversion),
                "worker": outcome.about,
                "windows": windows and windows[1],
                "since_clip": round(time.time() - self._since, 2),
            },
        )
        self.rows.pop(0)
        self._clear()
        return row.key

    def fail(self, kind: str, outcome: Outcome) -> list[str]:
        """Gives up the current edit, or, if a tune fails, all edits that need it. Returns their keys."""
        row, failed = self.rows[0], []
        key, self._waiting = self._waiting, None
        for one in list(self.rows):
            if one is row or key is not None and key in self._tunes(self._graph(one)).values():
                self._set_aside(one, kind, outcome)
                failed.append(one.key)
        self._clear()
        return failed

    def give_up(self, kind: str, outcome: Outcome) -> list[str]:
        """Gives up all remaining edits. Returns their keys."""
        keys = [row.key for row in self.rows]
        for row in list(self.rows):
            self._set_aside(row, kind, outcome)
        self._clear()
        return keys

    def shorten(self) -> int | None:
        """Switches the clip's edits to windows, once; returns their length, or None if that is not possible."""
        if self.rows[0].key in self._windows:
            return None
        frames = self.rows[0].frames or 24
        found = None
        for row in self.rows:
            inputs = row.graph[plan.clip_place(row.graph).node]["inputs"]
            most = inputs.get("max_frames") or frames
            found = plan.in_windows(row.graph, min(frames, most) if isinstance(most, int) else frames)
            if found is None:
                return None
            self._windows[row.key] = found
        return found[1] if found else None

    def keep_snapshot(self, content: bytes) -> None:
        """Keeps a snapshot of the running tuning. Raises `OSError`."""
        if self._waiting is not None and not self.home.has(self._waiting):
            self.home.keep_snapshot(self._waiting, content)

    def forget_snapshot(self) -> bool:
        """Deletes the snapshot that the current tuning could not resume from; returns whether there was one."""
        if self._waiting is None or not self._resumed:
            return False
        self.home.drop(self._waiting, tune=False)
        return True

    def _set_aside(self, row: Row, kind: str, outcome: Outcome) -> None:
        self.rows.remove(row)
        self.results.fail(row, kind, outcome.sentence, {"worker": outcome.about, "seconds": round(outcome.seconds, 2)})

    def _graph(self, row: Row) -> Graph:
        return self._windows[row.key][0] if row.key in self._windows else row.graph

    def _tunes(self, graph: Graph) -> dict[str, str]:
        """The keys of the tunes, by node."""
        return {node: plan.tune_key(graph, node) for node in plan.tunes(graph)}

    def _fetched(self, source: Source, has: set[str], put: Put) -> object:
        if f"input/{source.name}" in has:
            return None
        return source.address if source.remote else [put(source.read())]

    def _clear(self) -> None:
        """If the clip is finished, deletes what no failed edit needs when it is tried again."""
        if not self.finished:
            return
        failed = [row for row in self.results.rows if row.key in self.results.failures and row.clip == self.clip]
        # In windows or not: the next start tries both.
        graphs = [graph for row in failed for graph in (row.graph, self._graph(row))]
        needed = {key for graph in graphs for key in self._tunes(graph).values()}
        for key in self._used - needed:
            self.home.drop(key, tune=not self.options.keep_tunes)


def make_units(rows: list[Row], results: Results, home: Home, options) -> list[ClipUnit]:
    """One unit per clip with unfinished edits, the longest first."""
    clips: dict[str, list[Row]] = {}
    for row in rows:
        if row.key not in results.records:
            clips.setdefault(row.clip.digest, []).append(row)
    units = [ClipUnit(rows_of_clip, results, home, options) for rows_of_clip in clips.values()]
    return sorted(units, key=lambda unit: -unit.cost)
