"""The folder of the results: whole files or none, the record last, and what is made of the records."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import time

import pytest

from batch.errors import BatchError
from batch.page import write_page
from batch.results import Results, parse_decibels, parse_scores
from batch.store import LEFT, LocalStore, UrlStore, open_store
from batch.table import read_table

ABOUT = {"pack": "0", "workflow": {}}


@pytest.fixture(params=["disk", "url"])
def store(request, tmp_path):
    return open_store(str(tmp_path / "out") if request.param == "disk" else f"local://{tmp_path / 'out'}")


@pytest.fixture
def rows(jobs, quickstart):
    return read_table(str(jobs), quickstart).rows


def test_both_kinds_of_folder(store):
    assert isinstance(store, (LocalStore, UrlStore)) and store.read("a/b.json") is None
    store.write("a/b.json", b"1")
    store.write("a/b.json", b"2")
    store.write("a/c/d.json", b"3")
    assert store.read("a/b.json") == b"2" and store.exists("a/c/d.json") and not store.exists("a/e.json")
    assert store.names("a", ".json") == ["a/b.json", "a/c/d.json"] and store.names("none", ".json") == []
    store.delete("a/b.json")
    store.delete("a/none.json")
    assert store.names("a", ".json") == ["a/c/d.json"]


def test_an_edit_is_finished_when_its_record_is_there(store, rows):
    results = Results(store, rows, ABOUT)
    row = rows[0]
    assert not results.records
    results.fail(row, "input", "It does not fit.", {})
    assert [entry["why"] for entry in Results(store, rows, ABOUT).entries() if entry["status"] == "failed"]
    store.write(results.name(row) + ".mp4", b"half a run")
    assert not Results(store, rows, ABOUT).records
    results.write(row, [("edit", ".mp4", b"video"), ("1", ".png", b"picture")], {"seconds": 1.0, "scores": {"a": 2.0}})
    again = Results(store, rows, ABOUT)
    assert list(again.records) == [row.key] and not again.failures
    assert [one["file"][-4:] for one in again.records[row.key]["files"]] == [".mp4", ".png"]
    assert again.records[row.key]["row"] == row.values and again.records[row.key]["clip"]["sha256"] == row.clip.digest
    store.write(results.name(row) + ".json", b'{"format": 1, "half')
    assert not Results(store, rows, ABOUT).records


def test_a_full_disk_leaves_nothing_half_written(tmp_path, rows, monkeypatch):
    store = LocalStore(str(tmp_path / "out"))
    results = Results(store, rows, ABOUT)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("batch.store.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        results.write(rows[0], [("edit", ".mp4", b"video")], {"seconds": 1.0})
    assert not [path for path in store.root.rglob("*") if path.is_file()] and not results.records


def test_a_move_that_fails_at_a_url_leaves_nothing(tmp_path, monkeypatch):
    store = open_store(f"local://{tmp_path / 'out'}")

    def gone(*paths):
        raise OSError("connection lost")

    monkeypatch.setattr(store.system, "mv", gone)
    with pytest.raises(OSError, match="connection lost"):
        store.write("a/b.json", b"1")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_only_what_a_killed_run_left_goes(tmp_path):
    """Not the files of others, and not those that another run is writing."""
    root, old = tmp_path / "out", time.time() - 2 * LEFT
    ours = [root / ".index.html.0123abcd.part", root / "clips" / "a" / ".b.mp4.0123abcd.part"]
    others = [root / "mine" / ".b.mp4.0123abcd.part", root / "clips" / ".mine.part", root / "clips" / "a.part"]
    young = root / "work" / ".c.safetensors.0123abcd.part"
    for path in (*ours, *others, young):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
        if path != young:
            os.utime(path, (old, old))
    LocalStore(str(root))
    assert {path for path in root.rglob("*") if path.is_file()} == {*others, young}


def test_a_folder_that_takes_no_files_is_refused_at_once(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("batch.store.os.fsync", full)
        with pytest.raises(BatchError, match="out cannot be written to: .*No space left"):
            open_store(str(tmp_path / "out"))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BatchError, match="file cannot be written to"):
        open_store(str(tmp_path / "file"))
    open_store(str(tmp_path / "out"))
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_two_runs_write_the_same_file(tmp_path, monkeypatch):
    """The second command begins, and ends, while the first one writes."""
    first, sync, begun = LocalStore(str(tmp_path / "out")), os.fsync, []

    def between(descriptor: int) -> None:
        sync(descriptor)
        if not begun:
            begun.append(True)
            LocalStore(str(tmp_path / "out")).write("a/b.json", b"second")

    monkeypatch.setattr("batch.store.os.fsync", between)
    first.write("a/b.json", b"first")
    assert begun and first.read("a/b.json") == b"first"


def test_table_and_page(store, rows):
    results = Results(store, rows, ABOUT)
    results.write(rows[0], [("edit", ".mp4", b"video")], {"seconds": 1.5, "scores": {"flicker": 2.0}, "worker": {}})
    results.fail(rows[1], "memory", "Too large </script>", {})
    rows[2].values["edit_prompt"] = "<!--<script>"  # from here, HTML would read on beyond the script's end
    results.write(rows[2], [("edit", ".mp4", b"video")], {"seconds": 1.5, "scores": {"flicker": 1.0}})
    name = results.name(rows[2]) + ".json"
    store.write(name, store.read(name).replace(b": 1.0", b": NaN"))  # as earlier versions wrote it
    results = Results(store, rows, ABOUT)
    write_page(results)
    lines = list(csv.DictReader(io.StringIO(store.read("results.csv").decode())))
    assert [line["status"] for line in lines] == ["finished", "failed", "finished", "waiting"]
    assert lines[0]["flicker"] == "2.0" and lines[1]["why"] == "Too large </script>" and lines[0]["line"] == "2"
    page = store.read("index.html").decode()
    data = page.split('type="application/json">')[1].split("</script>")[0]
    found = json.loads(data, parse_constant=pytest.fail)
    assert len(found["edits"]) == 4 and found["summary"].startswith("2 of 4 edits finished, 1 failed, 1 waiting")
    assert "<" not in data and found["edits"][2]["row"]["edit_prompt"] == "<!--<script>"
    assert [entry["scores"] for entry in found["edits"][:3]] == [{"flicker": 2.0}, {}, {}]
    assert store.exists(found["edits"][0]["file"])


def test_texts_of_the_nodes():
    text = "flicker: change per frame, %: 2.62\nall change per frame: 3.69 (source 1.2)\nno number: none"
    text += "\nCLIP: nan\nPSNR: inf"
    assert parse_scores(text) == {"flicker: change per frame, %": 2.62, "all change per frame": 3.69}
    assert parse_decibels("30.8 dB, SSIM 0.9, frame 2 worst") == 30.8 and parse_decibels("") is None
