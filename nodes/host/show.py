"""What a node shows on itself in the graph editor: pictures below its inputs, and text."""

from __future__ import annotations

import sys

import torch
from comfy_api.latest import ui


def shown(node, pictures: torch.Tensor | None = None, text: str = "") -> dict:
    """The `ui` of a node's output. `node`: the running node's class, with `unique_id` among its hidden inputs;
    `pictures`: `f h w 3` in 0..1.

    The text goes out twice: among the outputs, where scripts find it, and to the text line that the editor has for
    every node.
    """
    output = ui.PreviewImage(pictures, cls=node).as_dict() if pictures is not None else {}
    if text:
        output["text"] = (text,)
        running = getattr(sys.modules.get("server"), "PromptServer", None)  # not imported: only a server has an editor
        name = node.hidden.unique_id if node.hidden else None
        if running is not None and name is not None:
            running.instance.send_progress_text(text, name)
    return output
