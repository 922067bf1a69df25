"""What a node shows on itself in the graph editor: pictures below its inputs, and text."""

from __future__ import annotations

import torch
from comfy_api.latest import ui

from .node_text import show_text


def shown(node, pictures: torch.Tensor | None = None, text: str = "") -> dict:
    """The `ui` of a node's output. `node`: the running node's class; `pictures`: `f h w 3` in 0..1. The text is among
    the outputs as well, where scripts find it."""
    output = ui.PreviewImage(pictures, cls=node).as_dict() if pictures is not None else {}
    if text:
        show_text(text)
        output |= ui.PreviewText(text).as_dict()
    return output
