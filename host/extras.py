"""What is nice to have beside a node's result: previews, plots, pictures. Where it fails the work goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import comfy.model_management
import torch
from comfy_execution.utils import get_executing_context

from .plain_text import warn

T = TypeVar("T")
_warned = {"job": None, "texts": set()}  # what the log says of the job that runs


def extra(what: str, make: Callable[[], T], otherwise: T = None) -> T:
    """What `make` gives; `otherwise` and a warning in the log where it fails, whatever the reason: a full disk, a
    previewer of another device, too little memory. The user's cancelling passes. `what`: what is missing then."""
    try:
        return make()
    except comfy.model_management.InterruptProcessingException:
        raise
    except Exception as error:
        _warn_once(f"no {what}, the work goes on: {type(error).__name__}: {error}")
        return otherwise


def drawn(make: Callable[[], torch.Tensor]) -> torch.Tensor:
    """A plot, `1 h w 3`; a black picture where it cannot be drawn."""
    picture = extra("plot", make)
    return torch.zeros(1, 64, 64, 3) if picture is None else picture


def _warn_once(text: str) -> None:
    """Once in a job, however often it fails there."""
    context = get_executing_context()
    job = context and context.prompt_id
    if job is None or job != _warned["job"]:
        _warned.update(job=job, texts=set())
    if text not in _warned["texts"]:
        _warned["texts"].add(text)
        warn(text)
