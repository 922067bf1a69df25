"""Which folder may import which: the arrows run one way, and no file imports itself by way of others."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("ei2", "host", "nodes", "miniature", "batch", "devtools", "benchmarks")
PACK = ("ei2", "host", "nodes")  # what runs in a user's ComfyUI
COMFYUI = {
    "comfy",
    "comfy_api",
    "comfy_execution",
    "comfy_extras",
    "folder_paths",
    "latent_preview",
    "node_helpers",
    "server",
}
MAY_IMPORT = {"ei2": set(), "host": {"ei2", "miniature"}, "nodes": {"host", "ei2"}}
OF_MINIATURE = {"miniature.architecture"}  # what describes the bundled weights


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def files() -> dict[str, Path]:
    """Every file of the folders by its module's name."""
    return {module_of(file): file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))}


@cache
def imports() -> dict[str, set[str]]:
    """What each module of the folders imports of them, wherever in it."""
    return {module: set(imported(file, module)) for module, file in files().items()}


def imported(file: Path, module: str):
    package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    for statement in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(statement, ast.Import):
            bases = [(alias.name, []) for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            above = package[: len(package) - statement.level + 1] if statement.level else []
            base = ".".join([*above, *([statement.module] if statement.module else [])])
            bases = [(base, [alias.name for alias in statement.names])]
        else:
            continue
        for base, names in bases:
            inner = {f"{base}.{name}" if base else name for name in names} & files().keys()
            yield from inner or {base} & files().keys()


def folder_of(module: str) -> str:
    return module.split(".")[0]


def test_the_arrows_are_seen():
    """Some that there are: the test above all reads imports rightly."""
    seen = imports()
    assert "ei2.ddim" in seen["host.sampling"] and "host.guard" in seen["nodes"] and "nodes.invert" in seen["nodes"]
    assert "nodes.pictures.plots" in seen["nodes.pictures.score_plots"] and "host.ui" in seen["host.folders"]


@pytest.mark.parametrize("folder", PACK)
def test_arrows_of_the_pack(folder):
    for module, targets in imports().items():
        if folder_of(module) != folder:
            continue
        beyond = {target for target in targets if folder_of(target) not in MAY_IMPORT[folder] | {folder}}
        assert not beyond, f"{module} imports {beyond}"
        assert {target for target in targets if folder_of(target) == "miniature"} <= OF_MINIATURE, module


@pytest.mark.parametrize("module", sorted(OF_MINIATURE))
def test_what_describes_the_miniature_imports_nothing_else(module):
    assert imports()[module] <= OF_MINIATURE


@pytest.mark.parametrize("folder", PACK)
def test_inside_the_pack_imports_are_relative(folder):
    """ComfyUI imports the pack under the name of its folder, which may be any."""
    for file in (ROOT / folder).rglob("*.py"):
        for statement in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(statement, ast.ImportFrom) and not statement.level:
                assert folder_of(statement.module) not in FOLDERS, f"{file}: {statement.module}"
            elif isinstance(statement, ast.Import):
                assert not {folder_of(alias.name) for alias in statement.names} & set(FOLDERS), file


def test_comfyui_beyond_its_public_api_is_for_host_alone():
    ours = {"comfy_api.latest", "comfy_execution.graph_utils"}  # its node API
    for folder, allowed in (("ei2", set()), ("nodes", ours)):
        for file in (ROOT / folder).rglob("*.py"):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
            names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
            assert {name for name in names if folder_of(name) in COMFYUI} <= allowed, file


def test_no_circles():
    """`miniature.things` asks `miniature.sprites` to draw them when they are first needed; nothing else goes round."""
    graph = {module: targets - {"miniature.sprites"} for module, targets in imports().items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(error.args[1][::-1]))
