"""EI²: text-driven video editing inside ComfyUI (Zhang et al., NeurIPS 2023, arXiv 2305.17431)."""

import logging

from .host_version import complaint

WEB_DIRECTORY = "web"  # served as /extensions/<the pack's folder>: docs/<node id>.md are the nodes' help pages


_complaint = complaint()
if _complaint is None:
    from .host.bundled_clips import provide_clips
    from .host.folders import sweep
    from .host.ui import extra
    from .nodes import EI2Extension

    async def comfy_entrypoint() -> EI2Extension:
        """Called once by ComfyUI at startup to get the pack's nodes."""
        extra("cleanup of files left by killed servers", sweep)
        extra("bundled clips in the input folder", provide_clips)
        return EI2Extension()
else:
    logging.error(_complaint)
    NODE_CLASS_MAPPINGS = {}  # without it, older hosts would report an error
