"""EI²: text-driven video editing inside ComfyUI (Zhang et al., NeurIPS 2023, arXiv 2305.17431)."""

from .nodes import EI2Extension

WEB_DIRECTORY = "web"  # served as /extensions/<the pack's folder>: docs/<node id>.md are the nodes' help pages


async def comfy_entrypoint() -> EI2Extension:
    """What ComfyUI calls to learn of the pack's nodes."""
    return EI2Extension()
