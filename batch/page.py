"""`index.html`: all results on one page that needs no server, made from `page.html` and the records."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

from .results import Results

TEMPLATE = Path(__file__).with_name("page.html")
MARK = "/*DATA*/"


def write_page(results: Results) -> None:
    """Writes the page and `results.csv`. Raises `OSError`."""
    entries = results.entries()
    scores = sorted({name for entry in entries for name in entry["scores"]})
    content = {"summary": summary(results), "scores": scores, "edits": entries}
    data = json.dumps(content, ensure_ascii=False, allow_nan=False)
    data = data.replace("<", "\\u003c")  # text in the table must not be read as HTML, such as the end of the script
    page = TEMPLATE.read_text(encoding="utf-8").replace(MARK, data)
    results.store.write("index.html", page.encode("utf-8"))
    results.write_csv()


def summary(results: Results) -> str:
    """A one-line summary, with clips per hour and worker."""
    entries = results.entries()
    done, failed, left = (
        sum(entry["status"] == status for entry in entries) for status in ("finished", "failed", "waiting")
    )
    text = f"{done} of {len(entries)} edits finished, {failed} failed, {left} waiting"
    rates = [f"{name}: {rate:.1f}" for name, rate in clips_per_hour(results).items()]
    return text + (f". Clips per hour and worker: {', '.join(rates)}" if rates else "")


def clips_per_hour(results: Results) -> dict[str, float]:
    """For each worker (host and process): clips finished per hour, from the first to the last of its edits."""
    seen: dict[str, tuple[set, list]] = {}
    for record in results.records.values():
        worker = record.get("worker", {})
        clips, times = seen.setdefault(f"{worker.get('host')}/{worker.get('worker')}", (set(), []))
        clips.add(record["clip"]["sha256"])
        end = datetime.fromisoformat(_with_colon(record["finished"])).timestamp()
        # A clip's first edit began with its tuning.
        times += [end, end - record.get("since_clip", record["seconds"])]
    return {
        name: len(clips) / (max(times) - min(times)) * 3600
        for name, (clips, times) in sorted(seen.items())
        if max(times) > min(times)
    }


def _with_colon(time: str) -> str:
    """A time offset in the form that Python 3.10 reads."""
    return f"{time[:-2]}:{time[-2:]}" if time[-3:-2] != ":" else time
