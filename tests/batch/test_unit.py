"""A clip's tasks, one after the other, and what becomes of them when they fail; the worker's part is left out."""

from __future__ import annotations

import errno
from types import SimpleNamespace

import pytest

from batch import plan
from batch.client import ExecutionError
from batch.results import Results
from batch.store import LocalStore
from batch.table import read_table
from batch.tasks import INPUT, OK, Outcome
from batch.unit import Home, make_units
from batch.worker import _is_memory
from miniature.jobs import write_jobs

OPTIONS = SimpleNamespace(snapshot_every=50, scores=True, keep_tunes=False)
PUT = lambda content: content
TEXTS = {plan.RECONSTRUCTION: "30.5 dB, SSIM 0.9", plan.SCORES: "flicker: change per frame: 2.5"}


@pytest.fixture
def made(tmp_path, quickstart):
    """Makes results and units of one clip of 24 frames with three edits, one of them with another seed."""
    table = write_jobs(tmp_path, ["blue_square"], edits=3, frames=24)
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0] + ",seed", lines[1] + ",0", lines[2] + ",1", lines[3] + ",0"]) + "\n")
    rows = read_table(str(table), quickstart).rows
    store = LocalStore(str(tmp_path / "out"))

    def make():
        results = Results(store, rows, {})
        return results, make_units(rows, results, Home(results), OPTIONS)

    return make


def edited(what: bytes = b"video") -> Outcome:
    return Outcome(OK, files=[("edit", ".mp4", what), ("source", ".mp4", b"source")], texts=TEXTS, seconds=2.0)


def tuned(steps: int = 200) -> Outcome:
    return Outcome(OK, tune=b"tune", steps=steps)


def test_one_tune_for_the_edits_that_share_it(made):
    results, (unit,) = made()
    assert [row.line for row in unit.rows] == [2, 4, 3]  # the same seed side by side
    names, put = [], []
    while not unit.finished:
        task = unit.next(set(), lambda content: put.append(content) or content)
        names.append("tune" if task.tune else "edit")
        unit.accept(tuned() if task.tune else edited())
    assert names == ["tune", "edit", "edit", "tune", "edit"]
    assert put.count(b"tune") == 3  # sent along with each edit, since this worker has nothing
    records = list(results.records.values())
    assert len(records) == 3 and {record["reconstruction_db"] for record in records} == {30.5}
    assert records[0]["scores"] == {"flicker: change per frame": 2.5} and records[0]["tuning_steps"] == 200
    assert not results.store.names("work", ".safetensors")  # they have served
    assert made()[1] == []  # a new start has nothing to do


def test_a_new_start_takes_tune_and_snapshot_from_home(made):
    _, (unit,) = made()
    task = unit.next(set(), PUT)
    unit.keep_snapshot(b"early")
    unit.keep_snapshot(b"late")
    _, (unit,) = made()
    task = unit.next(set(), PUT)
    name = task.graph["8"]["inputs"]["resume_from"]
    assert task.files[f"models/ei2_tunes/snapshots/{name}"] == [b"late"]
    assert unit.forget_snapshot()  # as if it could not go on from it
    assert unit.next(set(), PUT).graph["8"]["inputs"]["resume_from"] == "none" and not unit.forget_snapshot()
    unit.accept(tuned())
    results, (unit,) = made()
    task = unit.next(set(), PUT)
    (file,) = [name for name in task.files if name.startswith("models/")]
    assert not task.tune and task.files[file] == [b"tune"]
    assert unit.next({file}, PUT).files[file] is None  # a worker that has it is sent nothing


def test_a_tune_stays_for_the_edits_that_failed(made):
    """Whether the failed one is the last or not. Files that no failed edit needs are deleted."""
    for place in (0, 1):
        results, (unit,) = made()
        unit.next(set(), PUT)
        unit.accept(tuned())
        for number in range(2):
            unit.next(set(), PUT)
            unit.fail(INPUT, Outcome(INPUT, "No.")) if number == place else unit.accept(edited())
        unit.next(set(), PUT)
        unit.accept(tuned())  # with the other seed
        unit.next(set(), PUT)
        unit.accept(edited())
        assert unit.finished and len(results.store.names("work", ".safetensors")) == 1
        _, (unit,) = made()
        assert not unit.next(set(), PUT).tune  # nothing is tuned again
        unit.accept(edited())
        assert not results.store.names("work", ".safetensors")
        for row in results.rows:
            results.store.delete(results.name(row) + ".json")


def test_the_tunes_of_a_clip_whose_last_edit_fails(made):
    results, (unit,) = made()
    while len(unit.rows) > 1:
        task = unit.next(set(), PUT)
        unit.accept(tuned() if task.tune else edited())
    unit.next(set(), PUT)
    unit.accept(tuned())
    unit.next(set(), PUT)
    unit.fail(INPUT, Outcome(INPUT, "No."))
    assert unit.finished and len(results.store.names("work", ".safetensors")) == 1  # not that of the two others


def test_a_full_disk_leaves_the_last_snapshot(made, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    _, (unit,) = made()
    unit.next(set(), PUT)
    unit.keep_snapshot(b"early")
    with monkeypatch.context() as patch:
        patch.setattr("batch.store.os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            unit.keep_snapshot(b"late")
    _, (unit,) = made()
    files = unit.next(set(), PUT).files
    assert [content for name, content in files.items() if "snapshots/" in name] == [[b"early"]]


def test_a_tune_that_fails_takes_its_edits_along(made):
    results, (unit,) = made()
    unit.next(set(), PUT)
    assert len(unit.fail(INPUT, Outcome(INPUT, "The clip has one frame."))) == 2
    assert [row.line for row in unit.rows] == [3] and len(results.failures) == 2
    unit.next(set(), PUT)
    unit.accept(tuned())
    unit.next(set(), PUT)
    assert len(unit.fail(INPUT, Outcome(INPUT, "No."))) == 1 and unit.finished
    assert len(made()[1][0].rows) == 3  # failed ones are tried again


def test_too_little_memory(made, quickstart):
    _, (unit,) = made()
    whole = unit.next(set(), PUT)
    assert unit.shorten() == 12
    task = unit.next(set(), PUT)
    assert task.tune != whole.tune and task.graph["8"]["inputs"]["window_frames"] == 12
    unit.accept(tuned())
    task = unit.next(set(), PUT)
    assert any(entry["class_type"] == plan.WINDOWS for entry in task.graph.values())
    assert unit.shorten() is None  # once
    unit.accept(edited())
    assert unit.results.entries()[0]["windows"] == 12
    error = lambda kind, text: ExecutionError(
        {"node_id": "1", "node_type": "", "exception_type": kind, "exception_message": text, "traceback": []}
    )
    assert _is_memory(error("EI2.host.memory.OutOfMemory", "It was not enough."))
    assert _is_memory(error("RuntimeError", "CUDA error: out of memory"))
    told = "Tuning of 24 frames would need about 30 GB of memory, but the device has only 8.0 GB: load fewer."
    assert _is_memory(error("ValueError", told)) and not _is_memory(error("ValueError", "The clip has one frame."))
