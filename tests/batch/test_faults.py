"""Faults on a real Ray cluster of two nodes, each with a real ComfyUI server: every edit is there exactly once, and no
clip is tuned twice but one whose tuning was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from batch.cluster import prepare
from miniature.jobs import write_jobs

from .conftest import ROOT

pytestmark = [
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="kills processes by signals"),
]
STORE = 80 << 20  # bytes of memory for Ray's objects, per node
STEPS, EVERY = 40, 2  # of tuning, and between its snapshots
LONG = 400  # seconds that a run may take


@pytest.fixture(scope="module")
def cluster(ray_installed):
    prepare(local=True)
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 starves on a machine that does other work
    from ray.cluster_utils import Cluster

    node = dict(num_cpus=1, num_gpus=0, object_store_memory=STORE, include_dashboard=False)
    cluster = Cluster(initialize_head=True, head_node_args=node)
    cluster.second = lambda: cluster.add_node(**{**node, "include_dashboard": None})
    cluster.second()
    yield cluster
    cluster.shutdown()


class Batch:
    """The command as a process of its own, and what its log says. `address`: of Ray, None: its own."""

    def __init__(self, table: Path, workflow: Path, out: Path, comfyui: Path, address: str | None, workers: int = 2):
        options = ["--workers", str(workers), "--cpus-per-worker", "1", "--snapshot-every", str(EVERY)]
        options += ["--snapshot-seconds", "0", "--comfyui", str(comfyui)]
        options += ["--address", address] if address else []
        command = [sys.executable, str(ROOT / "batch"), str(table), "--workflow", str(workflow), "--out", str(out)]
        self.out, self._read = out, 0
        log = out / "work" / "log.jsonl"
        self._before = len(log.read_text().splitlines()) if log.exists() else 0
        self.process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )

    def events(self, *kinds: str) -> list[dict]:
        log = self.out / "work" / "log.jsonl"
        lines = log.read_text(encoding="utf-8").split("\n")[self._before : -1] if log.exists() else []
        found = [json.loads(line) for line in lines]
        return [event for event in found if not kinds or event["event"] in kinds]

    def wait_for(self, condition, seconds: float = LONG):
        """Waits until the condition gives something; returns that."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = condition()
            if found:
                return found
            assert self.process.poll() is None, self.process.stdout.read()
            time.sleep(0.05)
        raise AssertionError(f"nothing came within {seconds:.0f} s: {self.events()[-5:]}")

    def tuning(self, unit: str, since: int = 0) -> tuple[int, Path]:
        """The process of the server that is in the middle of this clip's tuning, and its base folder. `since`: how many
        tunings of it began before."""
        tasks = lambda: [event for event in self.events("task") if event["task"] == f"{unit}: tune"]
        self.wait_for(lambda: len(tasks()) > since)
        server = tasks()[-1]["server"]
        base = base_folder(server)
        self.wait_for(lambda: list((base / "models/ei2_tunes/snapshots").glob("[!.]*.safetensors")))
        return server, base

    def end(self, seconds: float = LONG) -> tuple[int, str]:
        """The exit code and all that was printed."""
        output, _ = self.process.communicate(timeout=seconds)
        return self.process.returncode, output


def base_folder(server: int) -> Path:
    import psutil

    command = psutil.Process(server).cmdline()
    return Path(command[command.index("--base-directory") + 1])


def records(out: Path) -> list[dict]:
    files = [path for path in (out / "clips").rglob("*.json") if not path.name.endswith(".failed.json")]
    return [json.loads(path.read_text(encoding="utf-8")) for path in files]


def check_whole(out: Path) -> None:
    """Nothing is half-written: each record's files are there in full, and no other file."""
    named = {"index.html", "results.csv", "work/log.jsonl"}
    for record in records(out):
        for file in record["files"]:
            assert (out / file["file"]).stat().st_size == file["bytes"] > 0
            named.add(file["file"])
    left = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} - named
    left = {name for name in left if name.startswith("clips/") and not name.endswith(("source.mp4", ".json"))}
    assert not left


def test_killed_servers_and_a_poison_clip(cluster, comfyui, short_workflow, tmp_path):
    table = write_jobs(tmp_path, ["blue_square", "red_circle"], edits=2, frames=4)
    (tmp_path / "clips" / "red_circle.mp4").rename(tmp_path / "clips" / "poison.mp4")
    table.write_text(table.read_text().replace("red_circle", "poison"))
    out = tmp_path / "out"
    batch = Batch(table, short_workflow(STEPS), out, comfyui, cluster.address)
    server, _ = batch.tuning("blue_square")
    os.kill(server, signal.SIGKILL)
    for attempt in range(2):
        server, _ = batch.tuning("poison", attempt)
        os.kill(server, signal.SIGKILL)
    code, said = batch.end()
    assert code == 1 and "killed 2 servers" in said, said
    edits = Counter(event["edit"] for event in batch.events("edit"))
    assert len(edits) == 2 and set(edits.values()) == {1} and len(records(out)) == 2
    failed = batch.events("failed")
    assert {event["unit"] for event in failed} == {"poison"} and {event["kind"] for event in failed} == {"quarantine"}
    (tuned,) = batch.events("tuned")  # the poison clip's tuning never ended
    assert tuned["unit"] == "blue_square" and tuned["steps"] < STEPS  # it went on from its snapshot
    assert {record["key"] for record in records(out)} == set(edits)
    assert all(record["reconstruction_db"] and record["scores"] for record in records(out))
    check_whole(out)
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "killed 2 servers" in page and (out / "results.csv").read_text().count("poison") == 2


def test_a_lost_node(cluster, comfyui, short_workflow, tmp_path):
    import psutil

    table = write_jobs(tmp_path, ["green_triangle", "yellow_star"], edits=2, frames=4)
    out = tmp_path / "out"
    batch = Batch(table, short_workflow(STEPS), out, comfyui, cluster.address)
    second = next(iter(cluster.worker_nodes))
    (raylet,) = second.all_processes["raylet"]

    def on_second() -> dict | None:
        """A tuning that runs there and has a snapshot at home."""
        for event in batch.events("snapshot"):
            if raylet.process.pid in [parent.pid for parent in psutil.Process(event["server"]).parents()]:
                return event
        return None

    lost = batch.wait_for(on_second)
    cluster.remove_node(second, allow_graceful=False)
    code, said = batch.end()
    cluster.second()
    assert code == 0, said
    edits = Counter(event["edit"] for event in batch.events("edit"))
    assert len(edits) == 4 and set(edits.values()) == {1}
    assert {event["unit"] for event in batch.events("requeued")} == {lost["unit"]}
    tuned = {event["unit"]: event["steps"] for event in batch.events("tuned")}
    assert len(batch.events("tuned")) == 2 and tuned[lost["unit"]] < STEPS  # elsewhere, from the snapshot
    check_whole(out)


def test_full_disk_cancel_and_killed_driver(cluster, comfyui, short_workflow, tmp_path):
    """One table, started four times: the disk is full; it is cancelled while it tunes, on a Ray of its own; its driver
    is killed after the first edit; it ends, on a Ray of its own."""
    table = write_jobs(tmp_path, ["purple_square"], edits=3, frames=4)
    workflow, out = short_workflow(STEPS), tmp_path / "out"
    out.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(out)], capture_output=True)
    small = mounted.returncode == 0  # an ordinary user may not
    try:
        start = lambda address: Batch(table, workflow, out, comfyui, address, workers=1)
        if small:
            filler = out / "filler"
            with open(filler, "wb") as file:
                free = os.statvfs(out).f_bavail * os.statvfs(out).f_frsize
                file.write(bytes(free - 40_000))
            batch = start(cluster.address)
            code, said = batch.end()
            assert code == 1 and "free some space first" in said, said
            assert not records(out)
            filler.unlink()
            check_whole(out)

        batch = start(None)
        batch.tuning("purple_square")
        batch.wait_for(lambda: batch.events("snapshot"))
        os.killpg(batch.process.pid, signal.SIGINT)  # what Ctrl-C in a terminal does: Ray's processes get it, too
        code, said = batch.end()
        assert code == 130 and "Run the same command again" in said, said
        assert not batch.events("tuned") and not batch.events("edit")
        assert list((out / "work").glob("snapshot-*.safetensors"))

        batch = start(cluster.address)
        batch.wait_for(lambda: batch.events("edit"))
        batch.process.kill()
        batch.end()
        (tuned,) = batch.events("tuned")
        assert tuned["steps"] < STEPS  # it went on where it was cancelled
        first = {record["key"] for record in records(out)}
        assert 1 <= len(first) < 3

        batch = start(None)
        code, said = batch.end()
        assert code == 0 and not batch.events("tuned"), said  # the tune was at home
        again = {event["edit"] for event in batch.events("edit")}
        assert len(first | again) == 3 and not first & again
        assert len(records(out)) == 3 and not list((out / "work").glob("*.safetensors"))
        check_whole(out)

        code, said = start(None).end()
        assert code == 0 and "All 3 edits are finished" in said
    finally:
        if small:
            subprocess.run(["umount", str(out)], check=True)
