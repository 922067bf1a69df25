"""The files that the workflow itself names, such as a mask that no column of the table sets. They lie in ComfyUI's
input folder on this machine, and are sent to the workers like those of the table."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .binding import Column, Place, file_input
from .errors import BatchError
from .graph import Graph, title
from .host import PACK_ROOT
from .plan import edit_run
from .sources import Source, find, is_url

FOLDER = re.compile(r"(.*) \[(input|output|temp)\]")  # how a workflow names a file in one of ComfyUI's other folders


class OwnFiles:
    """Finds the files that `graph` needs. `comfyui`: its folder, or None if it is not on this machine; `scores`:
    whether scores are measured, which may need files too."""

    def __init__(self, graph: Graph, comfyui: Path | None, scores: bool):
        self._found: dict[Place, Source | str] = {}  # or what is wrong
        self._columns: dict[Place, Column] = {}
        needed = edit_run(graph, {}, "", True, scores).graph
        for node in graph:
            key = file_input(graph, node)
            name = graph[node]["inputs"][key] if key else None
            if node not in needed or not isinstance(name, str) or not name or is_url(name) or Path(name).is_absolute():
                continue
            place = Place(node, key)
            self._columns[place] = Column(f"{node}.{key}", (place,), file=True)
            try:
                self._found[place] = _find(name, comfyui)
            except BatchError as error:
                node_named = f"the workflow's node '{title(graph, node)}' loads '{name}'"
                self._found[place] = f"{node_named}, but {error}, or name a file in a column"

    def besides(self, columns: set[Column]) -> dict[Column, Source | str]:
        """The files that none of these columns sets; the reason where one is missing."""
        places = {place for column in columns for place in column.places}
        return {self._columns[place]: found for place, found in self._found.items() if place not in places}


def _find(name: str, comfyui: Path | None) -> Source:
    """Raises `BatchError`."""
    match = FOLDER.fullmatch(name)
    name, folder = match.groups() if match else (name, "input")
    places = [comfyui / folder] if comfyui else []
    # Each server copies the pack's own clips there, too.
    for place in [*places, PACK_ROOT / "assets"]:
        if os.path.isfile(place / name):  # unlike Path's, never raises
            return find(name, place)
    if comfyui is None:
        raise BatchError("there is no ComfyUI here to take it from: name its folder with --comfyui")
    raise BatchError(f"there is no such file in {comfyui / folder}: put it there")
