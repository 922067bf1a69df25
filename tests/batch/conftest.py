"""The batch run with very short work: 4 frames of 64 x 64 pixels, a handful of steps. Needs Ray."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from devtools.environment import ROOT, SetupError
from devtools.host import locate
from miniature.jobs import write_jobs

QUICKSTART = ROOT / "workflows" / "api" / "quickstart_full.json"
LEARNS_ONLY = "learn_and_keep"  # the bundled workflow without an edit
BUNDLED = sorted(file for file in QUICKSTART.parent.glob("*.json") if file.stem != LEARNS_ONLY)


@pytest.fixture(scope="session")
def ray_installed():
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install --no-deps -r devtools/requirements-batch.txt")


@pytest.fixture(scope="session")
def comfyui() -> Path:
    try:
        return locate()
    except SetupError as error:
        raise pytest.UsageError(str(error)) from error


@pytest.fixture
def quickstart() -> dict:
    """The bundled workflow as it is."""
    return json.loads(QUICKSTART.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def short_workflow(tmp_path_factory):
    """Makes a file of the quickstart, shortened, with so many steps of tuning."""

    def make(steps: int) -> Path:
        graph = json.loads(QUICKSTART.read_text(encoding="utf-8"))
        shorter = {
            "EI2_LoadVideo": {"width": 64, "height": 64, "max_frames": 4},
            "EI2_OneShotTune": {"steps": steps},
            "EI2_Invert": {"steps": 2},
        }
        for entry in graph.values():
            entry["inputs"] |= shorter.get(entry["class_type"], {})
        path = tmp_path_factory.mktemp("workflow") / "short.json"
        path.write_text(json.dumps(graph), encoding="utf-8")
        return path

    return make


@pytest.fixture(scope="session")
def jobs(tmp_path_factory) -> Path:
    """Two rendered clips of 4 frames and a table of two edits each."""
    return write_jobs(tmp_path_factory.mktemp("jobs"), ["blue_square", "red_circle"], edits=2, frames=4)
