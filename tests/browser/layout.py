"""Lays the bundled workflows out so that nothing overlaps in either renderer of the editor, before or after a run.

    python -m tests.browser.layout workflows/*.json

The editor shows each workflow in the classic renderer and in Nodes 2.0, as it is and after a short run, and tells how
large every node then is. In each group the nodes move down until there is room for that, groups follow their nodes, and
what lies below follows the groups. Nothing moves up or sideways, and no box shrinks, so that the layout can be made for
several front ends in turn (COMFYUI_FRONT_END).
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from batch.client import Client
from tests.server.graphs import forget_results

from .boxes import TITLE, places
from .short_run import provide, run_short

GAP = 24  # between the nodes of a group, and their titles
BELOW = 30  # between a group and what lies below it
PADDING, HEAD = 16, 44  # of a group around its nodes: at three sides, and above the highest title
ROW = 5  # nodes that start within so many pixels stay side by side


@dataclass
class Block:
    """A group with its nodes, or a node alone: entries of a workflow's file."""

    nodes: list[dict]
    group: dict | None = None

    @property
    def edges(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        if self.group:
            left, top, width, height = self.group["bounding"]
            return left, top, left + width, top + height
        return edges(self.nodes[0])

    def shift(self, by: float) -> None:
        for node in self.nodes:
            node["pos"] = [node["pos"][0], node["pos"][1] + by]
        if self.group:
            self.group["bounding"][1] += by


def edges(node: dict) -> tuple[float, float, float, float]:
    """Left, top (of the title), right, bottom."""
    (x, y), (width, height) = node["pos"], node["size"]
    return x, y - TITLE, x + width, y + height


def arranged(workflow: dict, before: dict[str, float], after: dict[str, float]) -> dict:
    """A copy of a workflow in the editor's format with its nodes clear of each other. `before`, `after` a run: what
    each node takes below its title. The first becomes its size, the second is left free: in Nodes 2.0, a higher box
    grows all the same by what is shown in it, since its text fields keep what they have."""
    workflow = copy.deepcopy(workflow)
    sizes = {}
    for node in workflow["nodes"]:
        name, (width, height) = str(node["id"]), node["size"]
        height = max(height, round(before.get(name, 0)))
        node["pos"], sizes[name] = list(node["pos"]), [width, height]
        node["size"] = [width, max(height, round(after.get(name, 0)))]
    blocks = blocks_of(workflow)
    for block in blocks:
        if block.group:
            stack(block)
    blocks.sort(key=lambda block: block.edges[1])
    for i, block in enumerate(blocks):
        above = [other for other in blocks[:i] if beside(other.edges, block.edges)]
        if above:
            block.shift(max(0, max(other.edges[3] for other in above) + BELOW - block.edges[1]))
    for node in workflow["nodes"]:
        node["size"] = sizes[str(node["id"])]
    return workflow


def blocks_of(workflow: dict) -> list[Block]:
    """The groups with what is in them now, and the other nodes."""
    blocks = [Block([], group) for group in workflow["groups"]]
    for node in workflow["nodes"]:
        x, y = node["pos"]
        inside = [block for block in blocks if holds(block.edges if block.group else None, x, y)]
        if inside:
            inside[0].nodes.append(node)
        else:
            blocks.append(Block([node]))
    return blocks


def holds(box: tuple | None, x: float, y: float) -> bool:
    return box is not None and box[0] <= x <= box[2] and box[1] <= y <= box[3]


def beside(box: tuple, other: tuple) -> bool:
    """Whether they share columns of the graph, so that one lies above the other."""
    return box[0] < other[2] and other[0] < box[2]


def stack(block: Block) -> None:
    """Moves a group's nodes down until they are clear, those of a row together, and fits the group around them."""
    waiting = sorted(block.nodes, key=lambda node: node["pos"][1])
    top, done = edges(waiting[0])[1], []
    while waiting:
        row = [node for node in waiting if node["pos"][1] - waiting[0]["pos"][1] < ROW]
        waiting = [node for node in waiting if node not in row]
        above = [edges(other)[3] + GAP for node in row for other in done if beside(edges(node), edges(other))]
        lowest = max([*above, *(edges(node)[1] for node in row)])
        for node in row:
            node["pos"][1] = lowest + TITLE
        done += row
    boxes, end = [edges(node) for node in block.nodes], block.edges[3]
    left, right = min(box[0] for box in boxes), max(box[2] for box in boxes)
    bottom = max(end, *(box[3] + PADDING for box in boxes))
    block.group["bounding"] = [left - PADDING, top - HEAD, right - left + 2 * PADDING, bottom - top + HEAD]


def measured(editor, server, path: Path, run: bool, folder: Path) -> dict[str, float]:
    """The height of each node below its title, by its id, in the units of the workflow's file."""
    if run:
        with Client(server.url) as client:  # nodes whose results the server remembers would not show their texts
            forget_results(client)
        run_short(editor, path, folder)
    else:
        editor.load(path)
    workflow = json.loads(path.read_text(encoding="utf-8"))
    widths = {str(node["id"]): node["size"][0] for node in workflow["nodes"]}
    boxes, _ = places(editor)
    scale = min((box.right - box.left) / widths[name] for name, box in boxes.items())  # some front ends enlarge graphs
    return {name: (box.bottom - box.top) / scale - TITLE for name, box in boxes.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workflows", nargs="+", type=Path)
    options = parser.parse_args()

    from devtools.server import Server

    from .editor import NODES_2, Editor

    contents = {path: json.loads(path.read_text(encoding="utf-8")) for path in options.workflows}
    heights = {path: ({}, {}) for path in contents}  # before and after a run
    with tempfile.TemporaryDirectory() as folder:
        for settings in ({}, NODES_2):
            with Server() as server:
                provide(server)
                with Editor(server.url, settings=settings) as editor:
                    for path in contents:
                        for run in (False, True):
                            for name, height in measured(editor, server, path, run, Path(folder)).items():
                                heights[path][run][name] = max(height, heights[path][run].get(name, 0))
    for path, content in contents.items():
        text = json.dumps(arranged(content, *heights[path]), indent=2, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
