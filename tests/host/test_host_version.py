"""On a ComfyUI that is too old the pack says so in one sentence, and its other nodes are not hurt."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

pytestmark = pytest.mark.host

ROOT = Path(__file__).parents[2]
LOAD = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("pack", sys.argv[1] + "/__init__.py", submodule_search_locations=sys.argv[1:])
module = importlib.util.module_from_spec(spec)
sys.modules["pack"] = module
spec.loader.exec_module(module)
print(hasattr(module, "comfy_entrypoint"), getattr(module, "NODE_CLASS_MAPPINGS", None))
"""  # noqa: E501


@pytest.mark.parametrize(
    "files, says",
    [
        ({}, "this one is older"),  # as up to 0.3.12
        ({"comfyui_version.py": '__version__ = "0.3.47"'}, "this is 0.3.47"),  # the last without comfy_api
        ({"comfyui_version.py": '__version__ = "0.3.59"', "comfy_api/latest.py": ""}, "this is 0.3.59"),
    ],
)
def test_a_host_that_is_too_old_is_told_in_one_sentence(files, says, tmp_path):
    """Of such a host nothing counts but what it is called and that it may lack `comfy_api`."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    done = subprocess.run([sys.executable, "-c", LOAD, str(ROOT)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.split() == ["False", "{}"], done.stderr
    assert f"EI2 needs ComfyUI 0.3.60 or newer, and {says}: update ComfyUI and restart it." in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "version, old",
    [
        ("0.3.59", True),
        ("0.3.60", False),
        ("0.3.75", False),
        ("0.4.0", False),
        ("0.4", False),
        ("1.0.0rc1", False),
        ("v0.3.9", True),
    ],
)
def test_versions_are_compared_as_numbers(version, old, pack):
    numbers = pack("host_version")._numbers
    assert (numbers(version) < numbers(pack("host_version").MINIMUM)) == old


def test_this_host_is_new_enough_and_the_declared_version_is_the_tested_one(pack):
    assert pack("host_version").complaint() is None
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["comfy"]
    assert declared["requires-comfyui"] == f">={pack('host_version').MINIMUM}"
