"""Writers that are killed at random moments, and several that write at once: every file is whole, none is lost."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import psutil
import pytest

from devtools.environment import ROOT
from ei2 import temporary
from ei2.snapshot_file import load_snapshot
from ei2.tensor_file import read
from ei2.tune_file import load_tune, save_new_tune

from .writers import a_tune

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the writers are forked, which this system cannot"),
]
MOST_ROUNDS = 100  # kills until one of them has come while a file was written, and one after it
RUNS = lambda process, since: psutil.pid_exists(process)


class Writers:
    """Children that write, of a process that has made all ready."""

    def __init__(self, kind: str, log: Path):
        pipe, self.log = subprocess.PIPE, log
        command = [sys.executable, "-m", "tests.faults.files.writers", kind]
        with open(log, "wb") as errors:
            self.process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=errors, text=True)
        assert self._answer() == "ready", log.read_text()

    def start(self, folder: Path, together: int = 1, count: int = 0) -> list[int]:
        """Their numbers. They write `count` times; 0: until they are killed."""
        self.process.stdin.write(f"{together} {count} {folder}\n")
        self.process.stdin.flush()
        return [int(one) for one in self._answer().split()]

    def ends(self) -> list[int]:
        """The exit codes of those started last."""
        return [int(one) for one in self._answer().split()]

    def errors(self) -> str:
        text = self.log.read_text()
        return text[text.find("Traceback") :] if "Traceback" in text else ""

    def close(self) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def _answer(self) -> str:
        return self.process.stdout.readline().strip()


@pytest.fixture(scope="module")
def writers(tmp_path_factory) -> Iterator[Callable[[str], Writers]]:
    """`writers(kind)`: those of a kind, ready once for all tests."""
    made = {}

    def writers(kind: str) -> Writers:
        if kind not in made:
            made[kind] = Writers(kind, tmp_path_factory.mktemp("writers") / "log")
        return made[kind]

    yield writers
    for one in made.values():
        one.close()


LOADERS = {
    "tunes": load_tune,
    "overwritten": load_tune,
    "snapshots": load_snapshot,
    "inversions": lambda path: read(path, "ei2_inversion"),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_killed_at_random_moments(kind, tmp_path, writers, rounds):
    """Whatever stands under a file's own name is whole; what is left beside it is found, counted and swept."""
    random, left, whole, made, done = Random(kind), 0, 0, writers(kind), 0
    while done < rounds(3, 20) or not (left and whole):  # some killed while they write, some that have written before
        done += 1
        assert done < MOST_ROUNDS, (left, whole)
        (child,) = made.start(tmp_path)
        time.sleep(random.uniform(0.0, 0.4))
        os.kill(child, signal.SIGKILL)
        assert made.ends() == [-signal.SIGKILL], made.errors()
        files = list(tmp_path.rglob("*.safetensors"))
        for path in files:
            LOADERS[kind](path)
            if kind == "tunes":
                path.unlink()
        whole += len(files)
        left += len(temporary.find_litter(tmp_path, RUNS))
        temporary.sweep(tmp_path, RUNS)
        assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} <= {".safetensors"}
    print(f"{kind}: {whole} whole files found, {left} leftovers swept after {done} kills")


def test_a_snapshot_replaced_under_a_kill_is_the_old_or_the_new_one(tmp_path, writers, rounds):
    """Losses, moments and weights are of the same step."""
    made = writers("snapshots")
    for wait in range(rounds(3, 20)):
        (child,) = made.start(tmp_path)
        time.sleep(0.05 + 0.013 * wait)
        os.kill(child, signal.SIGKILL)
        made.ends()
        for path in tmp_path.glob("*.safetensors"):
            _, state = load_snapshot(path)
            steps = len(state.losses)
            assert state.moments[0]["step"] == steps and (state.weights["temporal.a"] == steps).all()


def test_several_processes_save_tunes_at_once(tmp_path, writers, rounds):
    """EI2 Save Tune with one folder and one prefix: each tune gets a number of its own."""
    together, count, made = rounds(3, 6), rounds(10, 60), writers("tunes")
    children = made.start(tmp_path, together, count)
    assert made.ends() == [0] * together, made.errors()
    prompts = sorted(load_tune(path).prompt for path in tmp_path.rglob("*.safetensors"))
    assert prompts == sorted(f"{child} {i}" for child in children for i in range(count))
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == together * count


def test_where_files_cannot_be_linked(tmp_path, monkeypatch):
    """As on exFAT and some network drives, new files still go to numbers of their own."""

    def no_links(*paths):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    paths = [tmp_path / f"{i}.safetensors" for i in range(9)]
    assert [save_new_tune(iter(paths), a_tune(), str(i)) for i in range(3)] == paths[:3]
    assert [load_tune(path).prompt for path in paths[:3]] == ["0", "1", "2"]
    assert len(list(tmp_path.iterdir())) == 3


def test_where_files_cannot_be_linked_a_failed_move_leaves_no_empty_tune(tmp_path, monkeypatch):
    def no_links(*paths):
        raise OSError(errno.EPERM, "Operation not permitted")

    def full(*paths):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="disk is full"):
        save_new_tune(iter([tmp_path / "a.safetensors"]), a_tune(), "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["overwritten", "snapshots", "inversions"])
def test_several_processes_replace_one_file_at_once(kind, tmp_path, writers, rounds):
    made = writers(kind)
    made.start(tmp_path, 3, rounds(8, 60))
    assert made.ends() == [0, 0, 0], made.errors()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files and all(path.suffix == ".safetensors" for path in files)
    for path in files:
        LOADERS[kind](path)


def test_what_is_being_written_is_no_litter(tmp_path, writers):
    """A sweep by another server, again and again while one writes, costs it nothing."""
    made = writers("overwritten")
    (child,) = made.start(tmp_path)
    end, seen = time.monotonic() + 1.5, 0
    while time.monotonic() < end:
        seen += any(one.name.endswith(".tmp") for one in tmp_path.iterdir())
        assert not temporary.sweep(tmp_path, RUNS).entries
    os.kill(child, signal.SIGKILL)
    assert made.ends() == [-signal.SIGKILL] and seen


def test_litter_of_others_is_swept_when_it_is_old(tmp_path):
    """Another machine's, and what this pack's first version and safetensors left."""
    hour = 3600
    old = [".ei2-00000000-1-1-00000000.tmp", ".a.safetensors.tmp", ".tmpAb12Cd"]
    for name in old:
        (tmp_path / name).write_bytes(b"12345")
    kept = ["a.safetensors", ".hidden", "notes.tmp", ".tmp", ".ei2.tmp"]
    for name in kept:
        (tmp_path / name).write_bytes(b"")
    assert not temporary.find_litter(tmp_path, RUNS)
    for name in old + kept:
        os.utime(tmp_path / name, (time.time() - 2 * hour,) * 2)
    assert temporary.sweep(tmp_path, RUNS) == temporary.Litter(3, 15)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
