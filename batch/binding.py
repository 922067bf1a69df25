"""Maps the table's columns to inputs of the workflow."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import BatchError
from .graph import Graph, ancestors, copy, is_link, of_class, title

CLIP, SOURCE, EDIT = "clip", "source_prompt", "edit_prompt"
TUNE, INVERT, SAMPLE, CONTROL = "EI2_OneShotTune", "EI2_Invert", "EI2_EditSample", "EI2_AttentionControl"
CARRY = "EI2_CarryKeyFrame"
# Inputs that name a file in ComfyUI's input folder, by node class; for other packs' loaders, by this word in the class.
FILES = {
    "EI2_LoadVideo": "video",
    "LoadVideo": "file",
    "LoadImage": "image",
    "LoadImageMask": "image",
    "LoadAudio": "audio",
}
OTHER_LOADER = ("VHS_LoadVideo", "video")
VIDEO_LOADERS = ("EI2_LoadVideo", "LoadVideo", "VHS_LoadVideo")
TEXTS = ("text", "value", "string", "target_prompt")  # inputs of nodes that hold a prompt; the first match counts
PASSED = ("positive", "conditioning", "conditioning_1", "conditioning_to", "cond")  # inputs of nodes that pass one on


@dataclass(frozen=True)
class Place:
    """An input of a node."""

    node: str
    key: str


@dataclass(frozen=True)
class Column:
    """What a column of the table sets. `file`: whether its cells name files."""

    name: str
    places: tuple[Place, ...]
    file: bool = False


def bind(graph: Graph, name: str) -> Column:
    """The inputs that a column sets. Raises `BatchError` for a name without a match, or with several different ones."""
    if name == CLIP:
        return Column(name, tuple(_clip_places(graph)), file=True)
    if name in (SOURCE, EDIT):
        return Column(name, tuple((_source_places if name == SOURCE else _edit_places)(graph)))
    places = _by_node(graph, name) or _file_by_title(graph, name) or _by_input(graph, name)
    if not places:
        raise BatchError(f"no node of the workflow has the title, the id or the input '{name}'")
    return Column(name, tuple(places), file=all(file_input(graph, place.node) == place.key for place in places))


def bound(graph: Graph, values: dict[Column, object]) -> Graph:
    """A copy of the workflow with these values."""
    graph = copy(graph)
    for column, value in values.items():
        for place in column.places:
            graph[place.node]["inputs"][place.key] = value
    return graph


def clip_place(graph: Graph) -> Place:
    """The input that names the clip. Raises `BatchError`."""
    loaders = _video_loaders(graph)
    own = of_class({node: graph[node] for node in loaders}, "EI2_LoadVideo") or loaders
    learned = ancestors(graph, of_class(graph, TUNE, INVERT))  # others steer the edit, such as depth for a ControlNet
    own = [node for node in own if node in learned] or own
    names = {str(graph[node]["inputs"][file_input(graph, node)]) for node in own}
    if not own:
        raise BatchError("the workflow has no node that loads a video: add an EI2 Load Video node")
    if len(own) > 1 and len(names) > 1:
        raise BatchError(
            f"several nodes load videos ({_list(graph, own)}): keep one, or give the loaders of "
            "masks a title that contains 'mask'"
        )
    return Place(own[0], file_input(graph, own[0]))


def _clip_places(graph: Graph) -> list[Place]:
    """The input that names the clip, and those of all other nodes that load the same video, such as for EI2 Metrics."""
    first = clip_place(graph)
    name = graph[first.node]["inputs"][first.key]
    places = [Place(node, file_input(graph, node)) for node in _video_loaders(graph)]
    return [first, *(one for one in places if one != first and graph[one.node]["inputs"][one.key] == name)]


def _video_loaders(graph: Graph) -> list[str]:
    """The nodes that load a video; those that load a mask only if there is no other."""
    loaders = [node for node in graph if graph[node]["class_type"].startswith(VIDEO_LOADERS)]
    loaders = [node for node in loaders if file_input(graph, node)]
    masks = [node for node in loaders if "mask" in title(graph, node).lower()]
    return [node for node in loaders if node not in masks] or masks


def file_input(graph: Graph, node: str) -> str | None:
    """The input of a node that names a file in the input folder, or None."""
    kind = graph[node]["class_type"]
    key = FILES.get(kind) or (OTHER_LOADER[1] if kind.startswith(OTHER_LOADER[0]) else None)
    return key if key in graph[node]["inputs"] else None


def source_text(graph: Graph) -> str:
    """The workflow's source prompt; empty if none is found."""
    try:
        places = _source_places(graph)
    except BatchError:
        return ""
    return str(graph[places[0].node]["inputs"][places[0].key])


def is_source(graph: Graph, sampler: str) -> bool:
    """Whether an EI2 Edit Sample uses the source prompt, and so reconstructs."""
    places, source = _texts(graph, sampler, "positive"), set(_source_start(graph))
    return bool(places) and set(places) <= source


def _source_places(graph: Graph) -> list[Place]:
    places = _source_start(graph)
    if not places:
        raise BatchError("the workflow has no source prompt: no text leads to EI2 One-Shot Tune or EI2 Invert")
    return _same_text(graph, places, SOURCE, set())


def _edit_places(graph: Graph) -> list[Place]:
    source = set(_source_start(graph))
    places = [place for node in of_class(graph, SAMPLE) for place in _texts(graph, node, "positive")]
    places = list(dict.fromkeys(place for place in places if place not in source))
    if not places:
        raise BatchError("the workflow has no edit prompt: no text of its own leads to EI2 Edit Sample")
    return _same_text(graph, places, EDIT, source)


def _source_start(graph: Graph) -> list[Place]:
    """The texts of the nodes that tune on and invert the clip."""
    found = []
    for kind, keys in ((TUNE, ["positive"]), (INVERT, ["null_source", "positive"]), (CONTROL, ["source_prompt"])):
        for node in of_class(graph, kind):
            for key in keys:
                places = [_literal(graph, node, key)] if kind == CONTROL else _texts(graph, node, key)
                found += [place for place in places if place and graph[place.node]["inputs"][place.key] != ""]
    return list(dict.fromkeys(found))


def _same_text(graph: Graph, found: list[Place], name: str, others: set[Place]) -> list[Place]:
    """These places, and all others with the same text, such as a note of the prompt."""
    texts = {graph[place.node]["inputs"][place.key] for place in found}
    if len(texts) > 1:
        nodes = [place.node for place in found]
        raise BatchError(f"several different texts could be the {name} ({_list(graph, nodes)}): name one by its title")
    (text,) = texts
    same = [Place(n, key) for n, e in graph.items() for key, value in e["inputs"].items() if text and value == text]
    return list(dict.fromkeys([*found, *(place for place in same if place not in others)]))


def _texts(graph: Graph, node: str, key: str) -> list[Place]:
    """The places of the text behind a node's conditioning input `key`."""
    value = graph[node]["inputs"].get(key)
    if not is_link(value) or value[0] not in graph:
        return []
    parent, inputs = value[0], graph[value[0]]["inputs"]
    if graph[parent]["class_type"] == CONTROL:
        place = _literal(graph, parent, "target_prompt")
        return [place] if place else []
    for name in TEXTS:
        if name in inputs:
            place = _literal(graph, parent, name)
            return [place] if place else []
    return next((found for name in PASSED if name in inputs and (found := _texts(graph, parent, name))), [])


def _literal(graph: Graph, node: str, key: str) -> Place | None:
    """The place of the text itself; the input may be a link to a node that holds it."""
    value = graph[node]["inputs"].get(key)
    if isinstance(value, str):
        return Place(node, key)
    if is_link(value) and value[0] in graph:
        parent = value[0]
        return next((found for name in TEXTS if (found := _literal(graph, parent, name))), None)
    return None


def _by_node(graph: Graph, name: str) -> list[Place]:
    """`Title.input`, `id.input`, or just the title or id of a node with a single text or value."""
    node = _called(graph, name)
    if node is not None:
        values = [key for key, value in graph[node]["inputs"].items() if not is_link(value)]
        texts = [key for key in values if isinstance(graph[node]["inputs"][key], str)]
        chosen = texts if len(texts) == 1 else values
        if len(chosen) != 1:
            raise BatchError(
                f"the node '{name}' has the inputs {', '.join(graph[node]['inputs'])}: write '{name}.' and one of them"
            )
        return [Place(node, chosen[0])]
    head, _, key = name.rpartition(".")
    node = _called(graph, head) if head else None
    if node is None:
        return []
    if key not in graph[node]["inputs"]:
        raise BatchError(f"the node '{head}' has no input '{key}', it has {', '.join(graph[node]['inputs'])}")
    return [Place(node, key)]


def _called(graph: Graph, name: str) -> str | None:
    if name in graph:
        return name
    found = [node for node in graph if title(graph, node).lower() == name.lower()]
    if len(found) > 1:
        raise BatchError(f"{len(found)} nodes are called '{name}': use an id ({', '.join(found)})")
    return found[0] if found else None


def _file_by_title(graph: Graph, name: str) -> list[Place]:
    """A node that loads a file, with the column's words in its title or class: `mask`, `key_frame`."""
    words, clip = name.lower().replace("_", " ").split(), clip_place(graph)
    found = []
    for node in graph:
        key, about = file_input(graph, node), f"{title(graph, node)} {graph[node]['class_type']}".lower()
        if key and Place(node, key) != clip and all(word in about for word in words):
            found.append(Place(node, key))
    return found if len(found) == 1 else []


def _by_input(graph: Graph, name: str) -> list[Place]:
    """The only node with an input of that name; if there are several, those that only the edit needs."""
    nodes = [node for node, entry in graph.items() if name in entry["inputs"]]
    if len(nodes) > 1:
        carriers, samplers = of_class(graph, CARRY), of_class(graph, SAMPLE)
        nodes = [node for node in nodes if node not in carriers] or nodes  # these have a cfg of their own
        edits = [node for node in samplers if node in nodes and not is_source(graph, node)]
        if edits and set(nodes) <= set(samplers):
            nodes = edits
    if len(nodes) > 1 and all(is_link(graph[node]["inputs"][name]) for node in nodes):
        return []
    if len(nodes) > 1:
        raise BatchError(
            f"'{name}' is an input of several nodes: write '{title(graph, nodes[0])}.{name}' or "
            f"'{nodes[0]}.{name}' (they are {_list(graph, nodes)})"
        )
    return [Place(node, name) for node in nodes]


def _list(graph: Graph, nodes: list[str]) -> str:
    return ", ".join(f"{node}: {title(graph, node)}" for node in dict.fromkeys(nodes))
