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
from benchmarks.editbench.plan import plan
from devtools.environment import ROOT

pytestmark = [pytest.mark.host, pytest.mark.slow]

FIELDS = (
    "method budget clip edit frames seed success preservation psnr psnr_object psnr_background flicker centroid_error "
    "mean_shift log_variance_shift reconstruction_psnr seconds_tune seconds_invert seconds_edit peak_bytes"
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
    assert len(rows) == 2 * 2  # two methods, two clips with one edit each
    assert {row["method"] for row in rows} == {"EI2", "Tune-A-Video"}
    for row in rows:
        assert all(math.isfinite(row[name]) for name in FIELDS if not isinstance(row[name], str))
        assert 0 <= row["success"] <= 1 and 0 <= row["preservation"] <= 1
        assert row["reconstruction_psnr"] > 10 and row["peak_bytes"] > 10e6 and row["seconds_tune"] > 0


def test_a_table_and_pictures_come_with_the_rows(folder):
    table = (folder / "editbench_quick.md").read_text()
    assert "Tune-A-Video" in table and "EI2" in table and "dev.py bench edit --quick" in table
    assert (folder / "editbench_quick_best.png").stat().st_size > 1000
    assert list(folder.glob("editbench_quick_*.png"))


def test_a_stopped_run_goes_on(folder, rows, tmp_path, capsys):
    lost = rows[0]
    file = tmp_path / "rows.json"
    run.write(rows[1:], file)
    run.execute(plan("quick"), file, tmp_path / "strips", "cpu", workers=1)
    assert "4 jobs, 3 of them done" in capsys.readouterr().out
    again = {run.identity(row): row for row in json.loads(file.read_text())}
    assert len(again) == len(rows)
    for row in rows[1:]:
        assert again[run.identity(row)] == row  # not run again
    repeated = again[run.identity(lost)]
    same = ("psnr", "flicker", "mean_shift", "reconstruction_psnr")
    assert [repeated[name] for name in same] == pytest.approx([lost[name] for name in same], rel=1e-3)
    assert len(list((tmp_path / "strips").glob("*.png"))) == 1


def test_rows_of_other_settings_are_made_anew(rows, tmp_path, capsys):
    file = tmp_path / "rows.json"
    outdated = {**rows[0], "settings": {**rows[0]["settings"], "cfg": 9.0}}
    run.write([outdated, *rows[1:]], file)
    run.execute(plan("quick"), file, tmp_path / "strips", "cpu", workers=1)
    assert "4 jobs, 3 of them done" in capsys.readouterr().out
    assert json.loads(file.read_text())[0]["settings"] == rows[0]["settings"]


def test_the_plan_holds_every_method_and_two_seeds():
    jobs = plan("test")
    equal = {(job.method, job.seed) for job in jobs if any(budget.name == "equal" for budget in job.budgets)}
    seeds = lambda method: (0, 1) if method.tuned else (0,)
    assert equal == {(m.name, seed) for m in (*methods.PRESETS, *methods.ABLATIONS) for seed in seeds(m)}
    keys = [key for job in jobs for key in job.given()]
    assert len(keys) == len(set(keys))
    assert {job.method for job in plan("dev")} == set(methods.METHODS)


def test_an_unknown_method_is_refused():
    command = [sys.executable, "-m", "benchmarks.editbench.run", "--quick", "--method", "Magic"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1 and "Magic" in result.stderr and "Tune-A-Video" in result.stderr


def test_peak_memory_starts_anew():
    from benchmarks.editbench.memory import peak_bytes, start_peak

    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("the system cannot tell")
    block = torch.ones(50_000_000)
    high = peak_bytes(on_gpu=False)
    del block
    start_peak(on_gpu=False)
    assert peak_bytes(on_gpu=False) < high - 100e6
