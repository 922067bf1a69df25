"""What the command makes of its options, and of names that the terminal cannot show."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from batch.command import arguments, make_setup
from batch.results import Results
from batch.store import LocalStore
from batch.table import read_table
from miniature.jobs import write_jobs

from .conftest import QUICKSTART, ROOT

GIVEN = ["jobs.csv", "--workflow", "workflow.json", "--out", "out"]


def test_comfyuis_options_in_one_text(capsys):
    options = lambda text: arguments([*GIVEN, f"--comfyui-options={text}"]).comfyui_options
    assert arguments(GIVEN).comfyui_options == ()
    assert options("--lowvram") == ("--lowvram",)
    assert options("--fast  --reserve-vram 2") == ("--fast", "--reserve-vram", "2")
    assert options(r"--temp-directory 'D:\my files' '#1'") == ("--temp-directory", r"D:\my files", "#1")
    with pytest.raises(SystemExit):
        options("--temp-directory 'D:")
    assert "a quotation mark is missing" in capsys.readouterr().err


def test_paths_are_those_of_this_machine_unless_there_is_a_cluster(comfyui, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    setup = make_setup(arguments([*GIVEN, "--models", "models", "--comfyui", os.path.relpath(comfyui)]))
    assert setup.models == str(tmp_path.resolve() / "models") and setup.comfyui == str(comfyui.resolve())
    setup = make_setup(arguments([*GIVEN, "--models", "models", "--address", "ray://HEAD:10001"]))
    assert setup.models == "models" and setup.comfyui is None


def test_a_name_that_the_terminal_cannot_show(ray_installed, comfyui, tmp_path):
    """All edits are finished, so the command only says where they are."""
    table = write_jobs(tmp_path, ["blue_square"], edits=1, frames=4)
    out = tmp_path / "\u6c7d\u8f66"
    graph = json.loads(QUICKSTART.read_text(encoding="utf-8"))
    rows = read_table(str(table), graph, comfyui).rows
    Results(LocalStore(str(out)), rows, {}).write(rows[0], [("edit", ".mp4", b"video")], {"seconds": 1.0})
    command = [sys.executable, ROOT / "batch", table, "--workflow", QUICKSTART, "--out", out, "--comfyui", comfyui]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    result = subprocess.run([str(one) for one in command], capture_output=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert rb"\u6c7d\u8f66" in result.stdout and (out / "index.html").exists()
