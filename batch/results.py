"""The results: for each edit, a video and a record. The record is written last: an edit without one is not finished.

clips/<clip>/source.mp4          the clip as it was loaded
clips/<clip>/<edit>.mp4          the edit; more files of the workflow as <edit>.1.png …
clips/<clip>/<edit>.json         the record
clips/<clip>/<edit>.failed.json  why there is no edit
work/                            tunes and tuning snapshots of unfinished clips
index.html, results.csv          made from the records
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
import time

from .store import CLIPS, Store
from .table import Row

RECORD, FAILED = ".json", ".failed.json"
FORMAT = 1
COLUMNS = ("line", "clip", "status", "why", "file", "seconds", "tuning_steps", "reconstruction_db", "worker")


class Results:
    """A folder's results of a table's edits: `records` of finished ones, and `failures`, by the row's key."""

    def __init__(self, store: Store, rows: list[Row], about: dict):
        self.store, self.rows, self._about = store, rows, about
        self.records: dict[str, dict] = {}
        self.failures: dict[str, dict] = {}
        self.changed = True
        there = set(store.names(CLIPS, RECORD))
        for row in rows:
            name = self.name(row)
            if name + RECORD in there and (record := self._read(name + RECORD)):
                self.records[row.key] = record
            elif name + FAILED in there and (record := self._read(name + FAILED)):
                self.failures[row.key] = record

    def name(self, row: Row) -> str:
        """The name of an edit's files, without extension."""
        words = row.values.get("edit_prompt", "") or "edit"
        return f"{self.folder(row)}/{_plain(words, 40)}-{row.key[:10]}"

    def folder(self, row: Row) -> str:
        return f"{CLIPS}/{_plain(row.clip.stem, 40)}-{row.clip.digest[:8]}"

    def source(self, row: Row) -> str | None:
        """The clip as it was loaded, or None if it has not been saved."""
        name = f"{self.folder(row)}/source.mp4"
        return name if self.store.exists(name) else None

    def write_source(self, row: Row, ending: str, content: bytes) -> None:
        """Writes the clip as it was loaded. Raises `OSError`."""
        self.store.write(f"{self.folder(row)}/source{ending}", content)

    def write(self, row: Row, files: list[tuple[str, str, bytes]], record: dict) -> None:
        """Writes the files of an edit (what, extension, content), then its record. Raises
        `OSError`, and writes no record then."""
        name, written = self.name(row), []
        for number, (what, ending, content) in enumerate(files):
            path = f"{name}{f'.{number}' if number else ''}{ending}"
            self.store.write(path, content)
            written.append({"what": what, "file": path, "bytes": len(content)})
        source = self.source(row)
        record = {
            "format": FORMAT,
            "line": row.line,
            "row": row.values,
            "key": row.key,
            "clip": {"file": row.clip.address, "sha256": row.clip.digest, "bytes": row.clip.size},
            "others": [{"file": one.address, "sha256": one.digest} for one in row.files.values() if one != row.clip],
            **self._about,
            **record,
            "files": written,
            "source": source,
            "finished": _now(),
        }
        self.store.write(name + RECORD, _json(record))
        self.store.delete(name + FAILED)
        self.records[row.key] = record
        self.failures.pop(row.key, None)
        self.changed = True

    def fail(self, row: Row, kind: str, sentence: str, record: dict) -> None:
        """Records why there is no edit. Raises `OSError`."""
        record = {
            "format": FORMAT,
            "line": row.line,
            "row": row.values,
            "key": row.key,
            "kind": kind,
            "why": sentence,
            **record,
            "finished": _now(),
        }
        self.failures[row.key] = record
        self.changed = True
        self.store.write(self.name(row) + FAILED, _json(record))

    def entries(self) -> list[dict]:
        """One entry per row of the table, for tables and the page."""
        return [self._entry(row) for row in self.rows]

    def write_csv(self) -> None:
        """Raises `OSError`."""
        entries = self.entries()
        columns = list(dict.fromkeys(name for row in self.rows for name in row.values if name != "clip"))
        scores = list(dict.fromkeys(name for entry in entries for name in entry["scores"]))
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow([*COLUMNS[:2], *columns, *COLUMNS[2:], *scores])
        for entry in entries:
            row = [entry[name] for name in COLUMNS[:2]] + [entry["row"].get(name, "") for name in columns]
            row += ["" if entry[name] is None else entry[name] for name in COLUMNS[2:]]
            writer.writerow(row + [entry["scores"].get(name, "") for name in scores])
        self.store.write("results.csv", text.getvalue().encode("utf-8"))

    def _entry(self, row: Row) -> dict:
        record, failure = self.records.get(row.key), self.failures.get(row.key)
        record_or_failure = record or failure or {}
        files = [one["file"] for one in record_or_failure.get("files", [])]
        return {
            "line": row.line,
            "clip": row.values["clip"],
            "clip_id": self.folder(row),
            "row": row.values,
            "status": "finished" if record else "failed" if failure else "waiting",
            "why": failure["why"] if failure and not record else "",
            "kind": failure and failure["kind"],
            "file": files[0] if files else "",
            "files": files,
            "source": record_or_failure.get("source"),
            "seconds": record_or_failure.get("seconds"),
            "tuning_steps": record_or_failure.get("tuning_steps"),
            "reconstruction_db": record_or_failure.get("reconstruction_db"),
            "scores": {name: one for name, one in record_or_failure.get("scores", {}).items() if one is not None},
            "worker": record_or_failure.get("worker", {}).get("host", ""),
            "windows": record_or_failure.get("windows"),
        }

    def _read(self, name: str) -> dict | None:
        """None for a damaged record: its edit is made again."""
        try:
            record = json.loads(self.store.read(name) or b"", parse_constant=lambda name: None)  # NaN, Infinity
            return record if record.get("format") == FORMAT else None
        except (ValueError, AttributeError):
            return None


def parse_scores(text: str) -> dict[str, float]:
    """The scores of EI2 Metrics' lines, `measure: value (source value)`, without those that are not finite."""
    scores = {}
    for line in text.splitlines():
        name, _, rest = line.rpartition(": ")
        try:
            value = float(rest.split()[0])
        except (ValueError, IndexError):
            continue
        if math.isfinite(value):
            scores[name] = value
    return scores


def parse_decibels(text: str) -> float | None:
    """The PSNR at the start of EI2 Reconstruction Check's text."""
    match = re.match(r"\s*([\d.]+) dB", text)
    return float(match.group(1)) if match else None


def _plain(text: str, most: int) -> str:
    """The text as a valid file name on every system."""
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")[:most] or "clip"


def _json(record: dict) -> bytes:
    return (json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
