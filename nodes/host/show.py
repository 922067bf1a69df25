"""What a node shows on itself in the graph editor: pictures below its inputs, and text."""

from __future__ import annotations

import torch
from comfy_api.latest import ui


def shown(node, pictures: torch.Tensor | None = None, text: str = "") -> dict:
    """The `ui` of a node's output. `node`: the running node's class; `pictures`: `f h w 3` in 0..1. `web/shown_text.js`
    shows the text."""
    output = ui.PreviewImage(pictures, cls=node).as_dict() if pictures is not None else {}
    if text:
        output |= ui.PreviewText(text).as_dict()
    return output
