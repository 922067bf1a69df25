"""Writers that are killed at random moments, and several that write at once: every file is whole, none is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import psutil
import pytest

from devtools.environment import ROOT
from ei2 import temporary
from ei2.snapshot_file import load_snapshot
from ei2.tensor_file import read
from ei2.tune_file import load_tune

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the writers are forked, which this system cannot"),
]
NOBODY = lambda process, since: psutil.pid_exists(process)


class Writers:
    """Children that write, of a process that has made all ready. `start(n)` -> their numbers; `ends()`: exit codes."""

    def __init__(self, kind: str, folder: Path, count: int | None = None):
        command = [sys.executable, "-m", "tests.faults.files.writers", kind, str(folder), *([str(count)] if count else [])]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        self._answer("ready")

    def start(self, together: int = 1) -> list[int]:
        self.process.stdin.write(f"{together}\n")
        self.process.stdin.flush()
        return [int(one) for one in self._answer().split()]

    def ends(self) -> list[int]:
        return [int(one) for one in self._answer().split()]

    def close(self) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.errors = self.process.stderr.read()

    def _answer(self, wanted: str | None = None) -> str:
        line = self.process.stdout.readline().strip()
        if not line or wanted not in (None, line):
            raise AssertionError(f"{line}\n{self.process.stderr.read()}")
        return line


@contextmanager
def writers(*arguments) -> Iterator[Writers]:
    made = Writers(*arguments)
    try:
        yield made
    finally:
        made.close()


LOADERS = {
    "tunes": load_tune,
    "overwritten": load_tune,
    "snapshots": load_snapshot,
    "inversions": lambda path: read(path, "ei2_inversion"),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_killed_at_random_moments(kind, tmp_path, rounds):
    """Whatever stands under a file's own name is whole; what is left beside it is found, counted and swept."""
    random, left, whole = Random(kind), 0, 0
    with writers(kind, tmp_path) as made:
        for _ in range(rounds(4, 20)):
            (child,) = made.start()
            time.sleep(random.uniform(0.0, 0.4))
            os.kill(child, signal.SIGKILL)
            assert made.ends() == [-signal.SIGKILL]
            files = [path for path in tmp_path.rglob("*.safetensors")]
            for path in files:
                LOADERS[kind](path)
                if kind == "tunes":
                    path.unlink()
            whole += len(files)
            left += len(temporary.find_litter(tmp_path, NOBODY))
            gone = temporary.sweep(tmp_path, NOBODY)
            assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} <= {".safetensors"}, gone
    assert left and whole, (left, whole)  # some were killed while they wrote, and some had written before


def test_a_snapshot_replaced_under_a_kill_is_the_old_or_the_new_one(tmp_path, rounds):
    """Losses, moments and weights are of the same step."""
    with writers("snapshots", tmp_path) as made:
        for wait in range(rounds(3, 20)):
            (child,) = made.start()
            time.sleep(0.05 + 0.013 * wait)
            os.kill(child, signal.SIGKILL)
            made.ends()
            for path in tmp_path.glob("*.safetensors"):
                _, state = load_snapshot(path)
                steps = len(state.losses)
                assert state.moments[0]["step"] == steps and (state.weights["temporal.a"] == steps).all()


def test_several_processes_save_tunes_at_once(tmp_path, rounds):
    """EI2 Save Tune with one folder and one prefix: each tune gets a number of its own."""
    together, count = rounds(3, 6), rounds(15, 60)
    with writers("tunes", tmp_path, count) as made:
        children = made.start(together)
        assert made.ends() == [0] * together
    assert not made.errors
    prompts = sorted(load_tune(path).prompt for path in tmp_path.rglob("*.safetensors"))
    assert prompts == sorted(f"{child} {i}" for child in children for i in range(count))
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == together * count


@pytest.mark.parametrize("kind", ["overwritten", "snapshots", "inversions"])
def test_several_processes_replace_one_file_at_once(kind, tmp_path, rounds):
    with writers(kind, tmp_path, rounds(10, 60)) as made:
        made.start(3)
        assert made.ends() == [0, 0, 0]
    assert not made.errors
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files and all(path.suffix == ".safetensors" for path in files)
    for path in files:
        LOADERS[kind](path)


def test_what_is_being_written_is_no_litter(tmp_path):
    """A sweep by another server, again and again while one writes, costs it nothing."""
    with writers("overwritten", tmp_path) as made:
        (child,) = made.start()
        end = time.monotonic() + 1.5
        seen = 0
        while time.monotonic() < end:
            seen += any(one.name.endswith(".tmp") for one in tmp_path.iterdir())
            assert not temporary.sweep(tmp_path, NOBODY).entries
        os.kill(child, signal.SIGKILL)
        assert made.ends() == [-signal.SIGKILL]
    assert seen


def test_litter_of_others_is_swept_when_it_is_old(tmp_path):
    """Another machine's, and what this pack's first version and safetensors left."""
    hour = 3600
    old = [".ei2-00000000-1-1-00000000.tmp", ".a.safetensors.tmp", ".tmpAb12Cd"]
    for name in old:
        (tmp_path / name).write_bytes(b"12345")
    kept = ["a.safetensors", ".hidden", "notes.tmp", ".tmp", ".ei2.tmp"]
    for name in kept:
        (tmp_path / name).write_bytes(b"")
    assert not temporary.find_litter(tmp_path, NOBODY)
    for name in old + kept:
        os.utime(tmp_path / name, (time.time() - 2 * hour,) * 2)
    assert temporary.sweep(tmp_path, NOBODY) == temporary.Litter(3, 15)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
