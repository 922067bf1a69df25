"""Checks a workflow's values against ComfyUI's description of its nodes (`/object_info`)."""

from __future__ import annotations

import math

from .binding import Column, file_input
from .graph import Graph, is_link

KINDS = {"INT": int, "FLOAT": float, "BOOLEAN": bool, "STRING": str}
TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def parse(text: str, before: object) -> object:
    """A cell as a value of the type that the workflow has there; if it replaces a link, as a number if possible."""
    if isinstance(before, bool):
        return {**dict.fromkeys(TRUE, True), **dict.fromkeys(FALSE, False)}.get(text.strip().lower(), text)
    if isinstance(before, str):
        return text
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def check_classes(graph: Graph, info: dict) -> list[str]:
    """The node classes that ComfyUI does not know."""
    return sorted({entry["class_type"] for entry in graph.values()} - set(info))


def check_column(graph: Graph, column: Column, info: dict) -> list[str]:
    """The faults of a column's values in a bound workflow, one sentence each."""
    problems = []
    for place in column.places:
        value, entry = graph[place.node]["inputs"][place.key], graph[place.node]
        if is_link(value) or file_input(graph, place.node) == place.key:
            continue
        spec = _spec(info.get(entry["class_type"], {}), place.key)
        problem = spec and check_value(value, spec)
        if problem:
            problems.append(problem)
    return list(dict.fromkeys(problems))


def check_value(value: object, spec: list) -> str | None:
    """The fault of a value, or None. `spec`: the input's type or options, and its settings if any."""
    kind, settings = spec[0], spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {}
    options = kind if isinstance(kind, list) else settings.get("options") if kind == "COMBO" else None
    if options is not None:
        # Some nodes look for files in their own folders, so an empty list means nothing.
        return (
            None if not options or value in options else f"{value!r} is not one of {', '.join(map(str, options[:12]))}"
        )
    if kind == "BOOLEAN":
        return None if isinstance(value, bool) else f"{value!r} is neither true nor false"
    if kind in ("INT", "FLOAT"):
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not number or kind == "INT" and value != int(value):
            return f"{value!r} is not a {'whole ' if kind == 'INT' else ''}number"
        low, high = settings.get("min"), settings.get("max")
        if low is not None and value < low or high is not None and value > high:
            return f"{value} is not between {low} and {high}"
    return None


def _spec(info: dict, key: str) -> list | None:
    for group in info.get("input", {}).values():
        if key in group:
            return group[key]
    return None
