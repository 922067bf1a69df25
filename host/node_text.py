"""Text shown in the node that is running."""

from __future__ import annotations

from comfy_execution.utils import get_executing_context

from .extras import extra
from .plain_text import plain


def show_text(text: str) -> None:
    """Shows it at once as plain text, in place of what was there before. Does nothing where no server runs the node."""
    context = get_executing_context()
    if context is None:
        return
    from server import PromptServer  # here, since importing it starts the host's web server code

    extra("text in the node", lambda: PromptServer.instance.send_progress_text(plain(text), context.node_id))
