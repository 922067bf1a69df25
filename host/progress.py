"""The node's progress bar, which is also where the user's cancelling takes effect."""

from __future__ import annotations

from collections.abc import Callable

import comfy.model_management
import comfy.utils
import latent_preview
from PIL import Image


def progress(total: int = 1) -> Callable[..., None]:
    """A progress bar of `total` steps: returns `advance(done=None, total=None, preview=None)`, to be called after every
    step.

    Without arguments the bar moves one step; `done` and `total` set it; `preview` is a picture to show in the node.
    Raises the host's InterruptProcessingException, which must not be swallowed, when the user cancels. The browser
    hears of it at most two hundred times, and of every picture.
    """
    bar = comfy.utils.ProgressBar(total)
    state = {"done": 0, "total": total, "shown": -1}

    def advance(done: int | None = None, total: int | None = None, preview: Image.Image | None = None) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        state["done"] = state["done"] + 1 if done is None else done
        state["total"] = state["total"] if total is None else total
        shown = 200 * state["done"] // max(1, state["total"])
        if shown != state["shown"] or preview:
            state["shown"] = shown
            picture = ("JPEG", preview, latent_preview.MAX_PREVIEW_RESOLUTION) if preview else None
            bar.update_absolute(state["done"], state["total"], picture)

    return advance
