"""The batch run stays apart: the nodes know nothing of it, and what it installs replaces nothing."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

from batch.worker import TOO_SMALL

from .conftest import ROOT


def names(file: str) -> dict[str, str]:
    """Package -> the rest of its line."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    found = [re.match(r"([A-Za-z0-9_.-]+)(.*)", line) for line in lines if line and not line.startswith("#")]
    return {one.group(1).lower().replace("_", "-"): one.group(2) for one in found}


def imported(file) -> set[str]:
    """The top modules that a file imports absolutely."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.partition(".")[0])
    return found


def test_no_package_of_the_host_is_replaced():
    ours, hosts = names("devtools/requirements-batch.txt"), names("devtools/requirements.txt")
    assert "ray" in ours and all(rest.startswith("==") for rest in ours.values())
    assert not set(ours) & set(hosts)


def test_the_extra_is_the_file():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extra = ast.literal_eval(re.search(r"^batch = (\[.+\])$", text, re.MULTILINE).group(1))
    lines = (ROOT / "requirements-batch.txt").read_text(encoding="utf-8").splitlines()
    assert extra == [line for line in lines if not line.startswith("#")]


def test_nodes_know_nothing_of_it_and_it_needs_no_development_files():
    for folder in ("ei2", "host", "nodes"):
        for file in (ROOT / folder).rglob("*.py"):
            assert not {"ray", "batch"} & imported(file), file
    for file in (ROOT / "batch").glob("*.py"):
        assert not {"devtools", "tests", "benchmarks", "miniature", "ei2", "host", "nodes"} & imported(file), file


def test_without_ray_a_sentence_says_how_to_get_it(jobs, tmp_path):
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import importlib.util as util\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'ray' else find(name, *rest)\n"
    )
    workflow = ROOT / "workflows" / "api" / "quickstart_full.json"
    command = [sys.executable, ROOT / "batch", jobs, "--workflow", workflow, "--out", tmp_path / "out"]
    result = subprocess.run(
        [str(one) for one in command], capture_output=True, text=True, env={"PYTHONPATH": str(hidden), "PATH": ""}
    )
    assert result.returncode == 2 and "pip install -r requirements-batch.txt" in result.stderr, result.stderr


def test_memory_that_runs_out_is_known_by_the_same_words():
    """As for the nodes; only the host's other nodes show an allocator's own message."""
    (words,) = re.findall(
        r"^EXHAUSTED = (\(.+?\))$", (ROOT / "ei2/exhausted.py").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert {one.lower() for one in ast.literal_eval(words)} <= set(TOO_SMALL)
