"""What the graph that is running says around a node: the words a prompt was made of, and which node it is."""

from __future__ import annotations

from comfy_execution.utils import get_executing_context

from .miniature import is_miniature, unknown_words
from .ui import extra, warn_in_node

TEXTS = {"CLIPTextEncode": "text", "EI2_AttentionControl": "target_prompt"}  # nodes that make a prompt of a text
EMPTY = (
    "{} is empty, so the model decides what to generate. If that is not intended, cancel and write what the {} shows."
)


def running_graph() -> tuple[dict, str] | None:
    """The graph in the host's API format, and the running node's id in it; None where no server runs the node."""
    context = get_executing_context()
    if context is None:
        return None
    from server import PromptServer  # here, since importing it starts the host's web server code

    def find() -> tuple[dict, str] | None:
        for item in PromptServer.instance.prompt_queue.get_current_queue()[0]:
            if item[1] == context.prompt_id and context.node_id in item[2]:
                return item[2], context.node_id
        return None

    return extra("look at the running graph", find)  # the queue is the host's own affair, and may change


def running_node() -> str:
    """The type of the node that runs, such as ModelSave; empty where no server runs one."""
    running = running_graph()
    return running[0][running[1]]["class_type"] if running else ""


def words_of(name: str) -> str | None:
    """The text of the prompt at the running node's input of that name; None where it cannot be told."""
    running = running_graph()
    return text_at(running[0], running[0][running[1]]["inputs"].get(name)) if running else None


def text_at(graph: dict, link) -> str | None:
    """The text of a prompt that comes over a link of the graph, through a plain node for text or another's value."""
    for _ in range(len(graph)):
        if not isinstance(link, list) or len(link) != 2 or link[0] not in graph:
            break
        node = graph[link[0]]
        inputs = node.get("inputs", {})
        kind = node.get("class_type")
        link = inputs.get(TEXTS[kind]) if kind in TEXTS else inputs.get("value") if "value" in inputs else None
    return link if isinstance(link, str) else None


def warn_of_words(model, name: str, what: str) -> None:
    """Tells the user before long work of an empty prompt, and of words that the miniature does not know. `what`: the
    video that the prompt at the input `name` is of."""
    text = words_of(name)
    if text is None:
        return
    warning = "" if text.strip() else EMPTY.format(name, what)
    if not warning and is_miniature(model):
        unknown = unknown_words(text)
        if unknown:
            warning = (
                f"The miniature model knows only its own world of drawn shapes, not the words {unknown} of "
                f"{name}: for a real film, load a Stable Diffusion checkpoint."
            )
    if warning:
        warn_in_node(warning)
