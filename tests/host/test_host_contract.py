"""docs/host_contract.md lists what the pack uses of the host; every line of it exists in the host that runs this."""

from __future__ import annotations

import ast
import functools
import importlib
import re
from pathlib import Path

import pytest

from devtools import host
from devtools.environment import ROOT

pytestmark = pytest.mark.host

TEXT = (ROOT / "docs" / "host_contract.md").read_text(encoding="utf-8")
LISTED = dict(re.findall(r"^\| `([\w.]+)` \| ([\w.]+) \|", TEXT.split("## Used where present")[0], re.MULTILINE))
HOST = {"comfy", "comfy_execution", "comfy_extras", "folder_paths", "latent_preview", "node_helpers", "server"}


def names_in(file: Path) -> set[str]:
    """Every dotted name of the host's that a file uses, the longest of each."""
    tree, known, names = ast.parse(file.read_text(encoding="utf-8")), {}, set()
    for statement in ast.walk(tree):
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                first = alias.name.split(".")[0]
                if first in HOST:
                    known[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(statement, ast.ImportFrom) and not statement.level and statement.module.split(".")[0] in HOST:
            for alias in statement.names:
                known[alias.asname or alias.name] = f"{statement.module}.{alias.name}"
                names.add(f"{statement.module}.{alias.name}")
        elif isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Attribute):  # management = comfy.…
            target, dotted = statement.targets[0], spelled(statement.value, known)
            if dotted and isinstance(target, ast.Name):
                known[target.id] = dotted
    names |= {dotted for node in ast.walk(tree) if (dotted := spelled(node, known))}
    return names


def spelled(node: ast.AST, known: dict[str, str]) -> str | None:
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name) and node.id in known and parts:
        return ".".join([known[node.id], *reversed(parts)])
    return None


@pytest.fixture(scope="module")
def used() -> set[str]:
    files = [file for folder in ("nodes", "host", "ei2") for file in (ROOT / folder).rglob("*.py")]
    names = set().union(*map(names_in, files))
    names = {name for name in names if not any(other.startswith(name + ".") for other in names)}
    modules = {name for name in names if is_module(name)}
    return names - modules


def is_module(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def test_what_is_used_is_listed(used):
    assert used - set(LISTED) - {"comfy.model_management.in_training"} == set()


def test_what_is_listed_is_used(used):
    assert set(LISTED) - used == set()


@pytest.mark.parametrize("name", LISTED)
def test_the_host_has_it(name):
    parts = name.split(".")
    if parts[0] == "server":  # importing it starts the host's web server code
        sources = [(host.locate() / file).read_text(encoding="utf-8") for file in ("server.py", "execution.py")]
        assert any(f"def {parts[-1]}(" in source or f"self.{parts[-1]} = " in source for source in sources)
        return
    for count in range(len(parts) - 1, 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:count]))
            break
        except ImportError:
            continue
    assert functools.reduce(getattr, parts[count:], module) is not None


def test_nothing_but_nodes_touches_the_host():
    assert set().union(*map(names_in, (ROOT / "ei2").rglob("*.py"))) == set()
