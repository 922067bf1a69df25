"""Workflows in ComfyUI's API format: node id -> `class_type`, `inputs`, `_meta`. A link is a list `[node, output]`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from .errors import BatchError

Graph = dict[str, dict]


def read_graph(text: str, name: str) -> Graph:
    """Raises `BatchError` if the text is not a workflow in API format."""
    try:
        graph = json.loads(text)
    except json.JSONDecodeError as error:
        raise BatchError(f"{name} is not a JSON file: {error}.") from error
    if isinstance(graph, dict) and isinstance(graph.get("nodes"), list):
        raise BatchError(
            f"{name} is a workflow of the graph editor: export it in ComfyUI with Workflow > Export (API) and name "
            "that file."
        )
    if not isinstance(graph, dict) or not graph or not all(_is_node(node) for node in graph.values()):
        raise BatchError(f"{name} is not a workflow in ComfyUI's API format.")
    return graph


def title(graph: Graph, node: str) -> str:
    """The node's title, or its class."""
    return graph[node].get("_meta", {}).get("title") or graph[node]["class_type"]


def is_link(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)


def of_class(graph: Graph, *classes: str) -> list[str]:
    """The nodes of these classes."""
    return [node for node, entry in graph.items() if entry["class_type"] in classes]


def copy(graph: Graph) -> Graph:
    return json.loads(json.dumps(graph))


def parents(graph: Graph, node: str) -> list[str]:
    """The nodes that its inputs come from."""
    return [value[0] for value in graph[node]["inputs"].values() if is_link(value) and value[0] in graph]


def ancestors(graph: Graph, nodes: Iterable[str]) -> set[str]:
    """The nodes and everything they depend on."""
    found, waiting = set(), list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += parents(graph, node)
    return found


def descendants(graph: Graph, starts: Iterable[tuple[str, int]]) -> set[str]:
    """The nodes that depend on these outputs."""
    links, found = {tuple(start) for start in starts}, set()
    grown = True
    while grown:
        grown = False
        for node, entry in graph.items():
            if node in found:
                continue
            for value in entry["inputs"].values():
                if is_link(value) and (tuple(value) in links or value[0] in found):
                    found.add(node)
                    grown = True
                    break
    return found


def only(graph: Graph, nodes: Iterable[str]) -> Graph:
    """The part of the graph that these nodes need."""
    kept = ancestors(graph, nodes)
    return {node: entry for node, entry in graph.items() if node in kept}


def relink(graph: Graph, old: tuple[str, int], new: tuple[str, int], at: Iterable[str] | None = None) -> None:
    """Reconnects inputs from the output `old` to `new`; `at`: only in these nodes."""
    for node in graph if at is None else at:
        inputs = graph[node]["inputs"]
        for key, value in inputs.items():
            if is_link(value) and tuple(value) == old:
                inputs[key] = list(new)


def new_node(class_type: str, **inputs) -> dict:
    """A node; links are written as tuples."""
    return {"class_type": class_type, "inputs": {k: list(v) if isinstance(v, tuple) else v for k, v in inputs.items()}}


def key_of(graph: Graph, left_out: Iterable[str] = ()) -> str:
    """A key for what the graph computes, without titles and the inputs `left_out`."""
    out = set(left_out)
    plain = {
        node: [entry["class_type"], {key: value for key, value in entry["inputs"].items() if key not in out}]
        for node, entry in graph.items()
    }
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:20]


def _is_node(node: object) -> bool:
    return isinstance(node, dict) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)
