"""The method's modules import one another without circles, and nothing of the host."""

from __future__ import annotations

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]
OUTSIDE = {"av", "einops", "imageio", "numpy", "PIL", "safetensors", "torch"}


def imports(file: Path) -> tuple[set[Path], set[str]]:
    """The files of the pack and the foreign packages that a file imports."""
    own, foreign = set(), set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = file.parents[node.level - 1]
            module = folder.joinpath(*(node.module or "").split(".")) if node.module else folder
            for path in (module, *(module / alias.name for alias in node.names)):
                own |= {path.with_suffix(".py")} if path.with_suffix(".py").is_file() else set()
        elif isinstance(node, ast.ImportFrom):
            foreign.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Import):
            foreign |= {alias.name.partition(".")[0] for alias in node.names}
    return own, foreign


def test_ei2_imports_no_circles_and_nothing_of_the_host():
    graph = {}
    for file in (ROOT / "ei2").rglob("*.py"):
        graph[file], foreign = imports(file)
        assert foreign - OUTSIDE <= sys.stdlib_module_names, file
        assert all(path.is_relative_to(ROOT / "ei2") for path in graph[file]), file
    assert sum(map(len, graph.values())) > 50
    TopologicalSorter(graph).prepare()  # raises CycleError
