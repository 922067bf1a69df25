"""What the user sees of a node during and after a run: text, pictures, progress, warnings in the log.

Part of the text comes from untrusted files, prompts and names. Older front ends insert a node's text into the page as
HTML; newer ones show it literally. Escaping would be right in one and wrong in the other, so markup characters are
replaced by look-alikes, which are readable in both.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Iterator
from typing import TypeVar

import comfy.model_management
import comfy.utils
import latent_preview
import numpy as np
import torch
from comfy_api.latest import ui
from comfy_execution.utils import get_executing_context
from PIL import Image

from ..ei2.user_text import printable

MOST_LETTERS = 8000  # characters; our longest report has half of that

# Front ends turn `[[label|link]]` into a link, by way of `__LNK0__`, without checking the label.
LINK, PLACE = re.compile(r"\[(?=\[)"), re.compile(r"__(?=LNK\d+__)", re.IGNORECASE)
T = TypeVar("T")
_warned = {"job": None, "texts": set()}  # what has been logged for the running job
FRAMES_SHOWN = 3
ROW = 128  # pixels high, or slightly more
MOST_PIXELS = 4_000_000  # of a picture from a file; ours have a fiftieth of it


def plain(text: str) -> str:
    """The text without markup and unprintable characters, cut to `MOST_LETTERS`."""
    text = str(text)
    if len(text) > MOST_LETTERS:
        text = f"{text[: MOST_LETTERS - 1]}…"
    return PLACE.sub("_ _", LINK.sub("[ ", printable(text).replace("<", "‹")))


def is_markup(name: str) -> bool:
    """Whether to leave a file's name out of lists of choices, whose entries front ends interpret as HTML."""
    return "<" in name


def warn(text: str) -> None:
    """A line in the log."""
    logging.warning("EI2: %s", plain(text))


def extra(what: str, make: Callable[[], T], otherwise: T = None) -> T:
    """The result of `make`. If it fails for any reason (a full disk, a previewer on another device, too little memory),
    logs a warning and returns `otherwise`. Cancelling is passed on. `what`: what is then missing."""
    try:
        return make()
    except comfy.model_management.InterruptProcessingException:
        raise
    except Exception as error:
        _warn_once(f"no {what}, the job continues: {type(error).__name__}: {error}")
        return otherwise


def drawn(make: Callable[[], torch.Tensor]) -> torch.Tensor:
    """A plot, `1 h w 3`; a black picture if it cannot be drawn."""
    picture = extra("plot", make)
    return torch.zeros(1, 64, 64, 3) if picture is None else picture


def _warn_once(text: str) -> None:
    """Logs a warning once per job."""
    context = get_executing_context()
    job = context and context.prompt_id
    if job is None or job != _warned["job"]:
        _warned.update(job=job, texts=set())
    if text not in _warned["texts"]:
        _warned["texts"].add(text)
        warn(text)


def progress(total: int = 1) -> Callable[..., None]:
    """A progress bar of `total` steps: returns
    `advance(done=None, total=None, preview=None)`, to call after every step.

    Without arguments the bar moves one step; `done` and `total` set it; `preview` is a picture to show in the node.
    Raises the host's InterruptProcessingException, which must not be swallowed, if the user cancels. The browser gets
    at most two hundred updates, plus one for every picture.
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


def show_text(text: str) -> None:
    """Shows plain text at once, replacing earlier text, in the browser window that queued the job. Does nothing if no
    server runs the node, or none of its windows queued it."""
    context = get_executing_context()
    if context is None:
        return
    from server import PromptServer  # here, because importing it starts the host's web server code

    server = PromptServer.instance
    if server.client_id is not None:  # to None, the host sends it to every window, also of other users
        extra("text in the node", lambda: server.send_progress_text(plain(text), context.node_id, server.client_id))


def warn_in_node(text: str) -> None:
    """A line in the log, and the text in the running node."""
    warn(text)
    show_text(text)


def shown(node, pictures: torch.Tensor | None = None, text: str = "") -> dict:
    """The `ui` of a node's output. `node`: the running node's class; `pictures`: `f h w 3` in 0..1, left out if the
    folder for temporary files is full. `web/shown_text.js` shows the text, with markup removed."""
    output = {}
    if pictures is not None:
        output = extra("picture in the node", lambda: ui.PreviewImage(pictures, cls=node).as_dict(), {})
    if text:
        output |= ui.PreviewText(plain(text)).as_dict()
    return output


def latent_picture(model, latents: torch.Tensor) -> bytes:
    """A few frames side by side as PNG. `latents`: `f c h w`, the host's latent scale. Empty if the host has no colours
    for the latents, and on failure."""

    def picture() -> bytes:
        image = draw(model, [model.model.process_latent_in(latents)])
        if image is None:
            return b""
        content = io.BytesIO()
        image.save(content, "PNG")
        return content.getvalue()

    return extra("picture of the clip", picture, b"")


def decode_picture(content: bytes) -> torch.Tensor | None:
    """A PNG as an IMAGE, `1 h w 3` in 0..1. None for any other content in a file: Pillow starts other programs for some
    formats, and can take minutes for a picture in a small file."""

    def picture() -> torch.Tensor | None:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            if image.width * image.height > MOST_PIXELS:
                return None
            pixels = np.array(image.convert("RGB"), dtype=np.float32)
        return torch.from_numpy(pixels / 255).unsqueeze(0)

    return extra("picture from the file", picture)


def draw(model, rows: list[torch.Tensor]) -> Image.Image | None:
    """One row of a few frames for each video `f c h w` (the model's latent scale); None if the host has no colours for
    the latents. If the user's previewer fails, the linear map to colours is used."""
    # on the CPU: from a GPU, the host's previewers copy the picture without waiting for it
    latents = torch.cat([_side_by_side(video) for video in rows], dim=-2)[None].float().cpu()
    image = None
    for previewer in _previewers(model):
        image = extra("picture by the chosen previewer", lambda: previewer.decode_latent_to_preview(latents))
        if image is not None:
            break
    if image is None:
        return None
    height = ROW * len(rows)
    if image.height >= height:  # the user's previewer returns full size
        return image.resize((round(image.width * height / image.height), height))
    factor = -(-height // image.height)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _side_by_side(video: torch.Tensor) -> torch.Tensor:
    """Its first, middle and last frames: `f c h w` -> `c h (n w)`."""
    count = min(FRAMES_SHOWN, len(video))
    places = torch.linspace(0, len(video) - 1, count).round().long().tolist()
    return torch.cat([video[place] for place in places], dim=-1)


def _previewers(model) -> Iterator:
    """The user's choice, then the linear map to colours, which always works."""
    latent_format = model.model.latent_format
    previewer = extra("chosen previewer", lambda: latent_preview.get_previewer(torch.device("cpu"), latent_format))
    if previewer is not None:
        yield previewer
    if latent_format.latent_rgb_factors is not None:
        yield latent_preview.Latent2RGBPreviewer(
            latent_format.latent_rgb_factors, latent_format.latent_rgb_factors_bias
        )  # a reshape, which newer hosts take too, is for models that cannot be inflated
