"""The bundled workflows in API format ask of every node what this host's version of it wants."""

from __future__ import annotations

import json

import pytest

from .graphs import BUNDLED

pytestmark = pytest.mark.server

WORKFLOWS = sorted(BUNDLED.glob("*.json"))


@pytest.fixture(scope="module")
def known(session_client) -> dict:
    return session_client.object_info()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_node_is_there_with_all_it_needs(path, known):
    """A host that gives one of its nodes another required input breaks a saved graph in API format."""
    for number, node in json.loads(path.read_text(encoding="utf-8")).items():
        where = f"node {number}, {node['class_type']}"
        assert node["class_type"] in known, where
        inputs = known[node["class_type"]]["input"]
        required, optional = inputs.get("required", {}), inputs.get("optional", {})
        assert required.keys() - node["inputs"].keys() == set(), where
        plain = {name for name in node["inputs"] if "." not in name}  # a dot: an input that another one brings along
        assert plain - required.keys() - optional.keys() == set(), where


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_links_fit(path, known):
    graph = json.loads(path.read_text(encoding="utf-8"))
    for number, node in graph.items():
        inputs = known[node["class_type"]]["input"]
        inputs = inputs.get("required", {}) | inputs.get("optional", {})
        for name, value in node["inputs"].items():
            if isinstance(value, list) and name in inputs:
                origin, output = value
                given, wanted = known[graph[origin]["class_type"]]["output"][output], inputs[name][0]
                assert wanted in (given, "*") or given == "*" or given in str(wanted).split(","), (number, name)
