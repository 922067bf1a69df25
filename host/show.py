"""What a node shows on itself in the graph editor: pictures below its inputs, and text."""

from __future__ import annotations

import torch
from comfy_api.latest import ui

from .extras import extra
from .plain_text import plain


def shown(node, pictures: torch.Tensor | None = None, text: str = "") -> dict:
    """The `ui` of a node's output. `node`: the running node's class; `pictures`: `f h w 3` in 0..1, left out where the
    folder for temporary files is full. `web/shown_text.js` shows the text, which is made plain."""
    output = {}
    if pictures is not None:
        output = extra("picture in the node", lambda: ui.PreviewImage(pictures, cls=node).as_dict(), {})
    if text:
        output |= ui.PreviewText(plain(text)).as_dict()
    return output
