"""The bundled workflows in API format ask of every node what this host's version of it wants, and nothing in them runs
while a model is missing."""

from __future__ import annotations

import json

import pytest

from batch.graph import Graph, ancestors, is_link

from .graphs import BUNDLED, skip_if_older

pytestmark = pytest.mark.server

LOADED = {"MODEL", "CONTROL_NET", "BACKGROUND_REMOVAL", "EI2_TUNE"}  # what is read from a file of its own


@pytest.fixture(scope="module")
def known(session_client) -> dict:
    return session_client.object_info()


@pytest.fixture(scope="module", params=sorted(BUNDLED.glob("*.json")), ids=lambda path: path.stem)
def graph(request, known) -> Graph:
    graph = json.loads(request.param.read_text(encoding="utf-8"))
    lacking = {entry["class_type"] for entry in graph.values()} - known.keys()
    skip_if_older(request.param.stem, lacking)
    assert lacking == set()
    return graph


def test_every_node_has_all_it_needs(graph, known):
    """A host that gives one of its nodes another required input breaks a saved graph in API format."""
    for number, node in graph.items():
        where = f"node {number}, {node['class_type']}"
        inputs = known[node["class_type"]]["input"]
        required, optional = inputs.get("required", {}), inputs.get("optional", {})
        assert required.keys() - node["inputs"].keys() == set(), where
        plain = {name for name in node["inputs"] if "." not in name}  # a dot: an input that another one brings along
        assert plain - required.keys() - optional.keys() == set(), where


def test_links_fit(graph, known):
    for number, node in graph.items():
        inputs = known[node["class_type"]]["input"]
        inputs = inputs.get("required", {}) | inputs.get("optional", {})
        for name, value in node["inputs"].items():
            if isinstance(value, list) and name in inputs:
                origin, output = value
                given, wanted = known[graph[origin]["class_type"]]["output"][output], inputs[name][0]
                assert wanted in (given, "*") or given == "*" or given in str(wanted).split(","), (number, name)


def test_every_output_needs_every_model(graph, known):
    """The host runs the outputs that are valid and leaves out the others without a word on the canvas: with one model
    missing, an output that does without it would make a run without a result end well."""
    kind = lambda node: known[graph[node]["class_type"]]
    outputs = [node for node in graph if kind(node)["output_node"]]
    links = lambda node: [value for value in graph[node]["inputs"].values() if is_link(value)]
    models = [node for node in graph if LOADED & set(kind(node)["output"]) and not links(node)]
    assert outputs and models
    assert [(end, model) for end in outputs for model in models if model not in ancestors(graph, [end])] == []
