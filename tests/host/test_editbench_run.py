"""EditBench's machinery on the real host: every step once, on two tiny clips."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import pytest
import torch

from benchmarks.editbench import methods, run
from benchmarks.editbench.jobs import INPUTS, plan
from benchmarks.results import write_rows
from devtools.environment import ROOT

pytestmark = [pytest.mark.host, pytest.mark.slow]

FIELDS = (
    "method budget clip edit frames seed success preservation agreement psnr psnr_object psnr_background flicker "
    "centroid_error mean_shift log_variance_shift reconstruction_psnr seconds_tune seconds_invert seconds_edit "
    "peak_bytes"
).split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What `dev.py bench edit --quick` leaves behind."""
    folder = tmp_path_factory.mktemp("editbench")
    command = [sys.executable, "-m", "benchmarks.editbench.run", "--quick", "--device", "cpu", "--output", str(folder)]
    result = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stderr[-3000:]
    return folder


@pytest.fixture
def rows(folder):
    return json.loads((folder / "editbench_quick.json").read_text())


def test_every_row_is_complete(rows):
    assert len(rows) == 4 * 2  # four methods, two clips with one edit each
    assert {row["method"] for row in rows} == {"EI2", "EI2 + control + blend", "Tune-A-Video", "Vid2Vid-zero"}
    for row in rows:
        of_object = {"agreement", "centroid_error"} if row["edit"] == "look" else set()
        assert all(row[name] is None for name in of_object)
        assert all(math.isfinite(row[name]) for name in set(FIELDS) - of_object if not isinstance(row[name], str))
        assert 0 <= row["success"] <= 1 and 0 <= row["preservation"] <= 1
        assert row["reconstruction_psnr"] > 10 and row["peak_bytes"] > 10e6
        assert (row["seconds_tune"] > 0) == (row["method"] != "Vid2Vid-zero")
        assert ("source_psnr" in row) == (row["method"] in ("EI2 + control + blend", "Vid2Vid-zero"))


def test_a_table_and_pictures_come_with_the_rows(folder):
    table = (folder / "editbench_quick.md").read_text()
    assert "Tune-A-Video" in table and "EI2" in table and "dev.py bench edit --quick" in table
    assert (folder / "editbench_quick_best.png").stat().st_size > 1000
    assert list(folder.glob("editbench_quick_*.png"))


def test_what_is_shared_is_done_once(rows):
    """EI2 with control is edited with the same tuning and the same inversion as EI2 without."""
    for clip in ("quick-line", "quick-pan"):
        plain, blend, zero = (
            next(row for row in rows if (row["method"], row["clip"]) == (method, clip))
            for method in ("EI2", "EI2 + control + blend", "Vid2Vid-zero")
        )
        shared = ("seconds_tune", "seconds_invert", "reconstruction_psnr", "mean_shift")
        assert [plain[name] for name in shared] == [blend[name] for name in shared]
        assert plain["psnr"] != blend["psnr"] and "source_psnr" not in plain
        assert blend["source_psnr"] == pytest.approx(blend["reconstruction_psnr"], abs=0.1), "without guidance"
        assert blend["settings"]["control"]["blend"] and zero["settings"]["null_text"] == 1


def test_a_stopped_run_goes_on(folder, rows, tmp_path, capsys):
    lost = next(row for row in rows if row["method"] == "EI2 + control + blend")
    kept = [row for row in rows if row is not lost]
    file = tmp_path / "rows.json"
    write_rows(file, kept)
    run.execute(plan("quick"), file, tmp_path / "strips", "cpu", workers=1)
    assert "8 edits, 7 of them done, 1 jobs to do" in capsys.readouterr().out
    again = {run.identity(row): row for row in json.loads(file.read_text())}
    assert len(again) == len(rows)
    for row in kept:
        assert again[run.identity(row)] == row  # not run again, though EI2's was learned again
    repeated = again[run.identity(lost)]
    same = ("psnr", "flicker", "mean_shift", "reconstruction_psnr")
    assert [repeated[name] for name in same] == pytest.approx([lost[name] for name in same], rel=1e-3)
    assert len(list((tmp_path / "strips").glob("*.png"))) == 1


def test_only_rows_of_the_same_settings_are_done(rows):
    jobs = plan("quick")
    done = {run.identity(row): {name: row[name] for name in INPUTS} for row in rows}
    assert not any(job.missing(done).cases for job in jobs)
    changed = next(key for key in done if key[0] == "Vid2Vid-zero")
    for other in ({"cfg": 9.0}, {"null_text": 2}, {"control": None}):
        outdated = {**done[changed], "settings": {**done[changed]["settings"], **other}}
        missing = [job.missing(done | {changed: outdated}) for job in jobs]
        assert [(job.clip, job.methods) for job in missing if job.cases] == [(changed[2], ["Vid2Vid-zero"])]


def test_the_plan_holds_every_method_and_two_seeds():
    jobs = plan("test")
    cases = [(job, case) for job in jobs for case in job.cases]
    equal = {(case.method, job.seed) for job, case in cases if case.budget.name == "equal"}
    seeds = lambda method: (0, 1) if method.tuned else (0,)
    assert equal == {(m.name, seed) for m in methods.COMPARED for seed in seeds(m)}
    for split in ("test", "dev"):
        keys = [key for job in plan(split) for key in job.inputs()]
        assert len(keys) == len(set(keys))
    assert {method for job in plan("dev") for method in job.methods} == set(methods.METHODS)


def test_the_plan_learns_once_what_can_be_shared():
    for split in ("test", "dev", "quick"):
        jobs = plan(split)
        learned = {(job.clip, job.seed): [] for job in jobs}
        for job in jobs:
            keys_learned = {methods.learning(methods.METHODS[case.method], case.budget) for case in job.cases}
            assert len(keys_learned) == 1
            learned[job.clip, job.seed] += keys_learned
        twice = 2 if split == "dev" else 1  # for the comparison, which comes first, and for the options
        assert all(keys.count(key) <= twice for keys in learned.values() for key in keys)
    shares = (
        len({job.clip for job in plan("dev") if "EI2 + control" in job.methods}),
        len({job.clip for job in plan("dev")}),
    )
    assert shares == (11, 33)
    first = plan("test")[0]
    assert [(case.method, case.budget.name) for case in first.cases] == [
        ("EI2", "equal"),
        ("EI2", "cfg 3, guidance in all steps"),
        ("EI2", "cfg 3, 100 steps"),
        ("EI2 + key frame", "equal"),
        ("EI2 + drawn frame", "equal"),
        ("EI2 + control", "equal"),
        ("EI2 + control + blend", "equal"),
    ]
    assert ["Video-P2P attention", "Video-P2P"] in [job.methods for job in plan("test")]


@pytest.mark.parametrize("split", ["test", "dev"])
def test_committed_rows_are_up_to_date(split):
    """A method or a budget that is changed must not leave rows behind that were made with another."""
    file = run.RESULTS / f"editbench_{split}.json"
    if not file.exists():
        pytest.skip(f"The {split} split has not been run.")
    rows = json.loads(file.read_text())
    inputs = {key: value for job in plan(split) for key, value in job.inputs().items()}
    assert [run.identity(row) for row in rows if inputs.get(run.identity(row)) != {n: row[n] for n in INPUTS}] == []


def test_some_methods_and_clips_can_be_chosen():
    jobs = run.chosen(plan("test"), ["EI2 + control"], first=2)
    assert {job.clip for job in jobs} == {"line-1", "circle-1"}
    assert [job.methods for job in jobs] == [["EI2 + control"]] * 4


def test_an_unknown_method_is_refused():
    command = [sys.executable, "-m", "benchmarks.editbench.run", "--quick", "--method", "Magic"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1 and "Magic" in result.stderr and "Tune-A-Video" in result.stderr


def test_peak_memory_starts_anew():
    from benchmarks.machine import peak_bytes, start_peak

    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("the system cannot tell")
    block = torch.ones(50_000_000)
    high = peak_bytes(on_gpu=False)
    del block
    start_peak(on_gpu=False)
    assert peak_bytes(on_gpu=False) < high - 100e6
