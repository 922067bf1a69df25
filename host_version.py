"""Checks, before anything of ComfyUI is imported, whether it is new enough for this pack. Standard library only."""

from __future__ import annotations

import importlib.util
import re

MINIMUM = "0.3.60"  # the oldest release that passes the tests; pyproject.toml declares the same


def complaint() -> str | None:
    """The message for a user whose ComfyUI is too old, or None. Releases before 0.3.13 do not state their version, but
    they also lack `comfy_api`, the API for nodes in newer ones."""
    try:
        from comfyui_version import __version__ as version
    except ImportError:
        version = None
    if version is None and importlib.util.find_spec("comfy_api") is not None:
        return None  # a custom build: let it try
    if version is not None and _numbers(version) >= _numbers(MINIMUM):
        return None
    found = f"this is {version}" if version else "this one is older"
    advice = "update ComfyUI and restart it. Its nodes are not loaded."
    return f"EI2 needs ComfyUI {MINIMUM} or newer, and {found}: {advice}"


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: `0.3.75rc1` is (0, 3, 75)."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])
