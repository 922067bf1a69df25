"""Reads the running graph: the text behind a prompt, and the type of the running node."""

from __future__ import annotations

from comfy_execution.utils import get_executing_context

from .miniature import is_miniature, unknown_words
from .ui import extra, warn_in_node

TEXTS = {"CLIPTextEncode": "text", "EI2_AttentionControl": "target_prompt"}  # nodes that turn text into a prompt
EMPTY = (
    "{} is empty, so the model decides what to generate. If that is not intended, cancel and write what the {} shows."
)


def running_graph() -> tuple[dict, str] | None:
    """The graph in the host's API format, and the running node's id in it; None if no server runs the node."""
    context = get_executing_context()
    if context is None:
        return None
    from server import PromptServer  # here, because importing it starts the host's web server code

    def find() -> tuple[dict, str] | None:
        for item in PromptServer.instance.prompt_queue.get_current_queue()[0]:
            if item[1] == context.prompt_id and context.node_id in item[2]:
                return item[2], context.node_id
        return None

    return extra("access to the running graph", find)  # the queue is internal to the host and may change


def running_node() -> str:
    """The type of the running node, such as ModelSave; empty if no server runs one."""
    running = running_graph()
    return running[0][running[1]]["class_type"] if running else ""


def words_of(name: str) -> str | None:
    """The text of the prompt at the running node's input of that name; None if it is unknown."""
    running = running_graph()
    return text_at(running[0], running[0][running[1]]["inputs"].get(name)) if running else None


def text_at(graph: dict, link) -> str | None:
    """The text of a prompt that arrives over a link of the graph, from a text encoder or a node with a text value."""
    for _ in range(len(graph)):
        if not isinstance(link, list) or len(link) != 2 or link[0] not in graph:
            break
        node = graph[link[0]]
        inputs = node.get("inputs", {})
        kind = node.get("class_type")
        link = inputs.get(TEXTS[kind]) if kind in TEXTS else inputs.get("value") if "value" in inputs else None
    return link if isinstance(link, str) else None


def warn_of_words(model, name: str, what: str) -> None:
    """Warns the user before long work about an empty prompt, and about words the miniature does not know. `what`: the
    video described by the prompt at the input `name`."""
    text = words_of(name)
    if text is None:
        return
    warning = "" if text.strip() else EMPTY.format(name, what)
    if not warning and is_miniature(model):
        unknown = unknown_words(text)
        if unknown:
            warning = (
                f"The miniature model knows only its own drawn world, not the words {unknown} of {name}: "
                "for a real film, load a Stable Diffusion checkpoint."
            )
    if warning:
        warn_in_node(warning)
