"""Where the editor draws nodes and groups, in either renderer: the classic one paints them on a canvas, Nodes 2.0 makes
elements of the page, whose content decides how high they are."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

TITLE = 30  # height of a node's title bar, which its position leaves out
TOUCH = 1  # by so much boxes may overlap: the page rounds
# Nodes and groups as [name, title, edges], in the graph's units. A node on the canvas is as high as it was made, or as
# its inputs need where that is more.
PLACES = """async title => {
    for (let i = 0; i < 4; i++) await new Promise(requestAnimationFrame)
    const { scale, offset } = app.canvas.ds, origin = app.canvas.canvas.getBoundingClientRect()
    const drawn = node => {
        const box = document.querySelector(`[data-node-id="${node.id}"]`)?.getBoundingClientRect()
        if (!box?.height) return null
        const x = (box.x - origin.x) / scale - offset[0], y = (box.y - origin.y) / scale - offset[1]
        return [x, y, x + box.width / scale, y + box.height / scale]
    }
    const painted = ({ pos: [x, y], size: [width, height] }, [, least]) =>
        [x, y - title, x + width, y + Math.max(height, least)]
    const nodes = app.canvas.graph.nodes.map(node =>
        [String(node.id), node.title, LiteGraph.vueNodesMode ? drawn(node) : painted(node, node.computeSize())])
    const groups = app.canvas.graph.groups.map(({ title, _bounding: [x, y, width, height] }) =>
        [title, title, [x, y, x + width, y + height]])
    return { nodes, groups }
}"""


class NotDrawn(RuntimeError):
    """The editor knows a node that the page does not show."""


@dataclass(frozen=True)
class Box:
    """`title`: the node's or group's; the edges in the graph's units, of a node with its title bar."""

    title: str
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        return (
            self.left < other.right - TOUCH
            and other.left < self.right - TOUCH
            and self.top < other.bottom - TOUCH
            and other.top < self.bottom - TOUCH
        )

    def holds(self, other: Box) -> bool:
        return (
            self.left <= other.left + TOUCH
            and self.top <= other.top + TOUCH
            and self.right >= other.right - TOUCH
            and self.bottom >= other.bottom - TOUCH
        )


def places(editor) -> tuple[dict[str, Box], list[Box]]:
    """The nodes, by their ids, and the groups of the graph that is open. Shows all of it first: the page may leave out
    what is not in sight. Raises `NotDrawn`."""
    editor.fit()
    editor.page.wait_for_timeout(800)  # nodes of the page take their size, and with it the graph, a moment later
    editor.fit()
    editor.page.wait_for_timeout(300)
    drawing = editor.page.evaluate(PLACES, TITLE)
    missing = [title for _, title, box in drawing["nodes"] if box is None]
    if missing:
        raise NotDrawn(f"The editor does not show {', '.join(missing)}.")
    nodes = {name: Box(title, *box) for name, title, box in drawing["nodes"]}
    return nodes, [Box(title, *box) for _, title, box in drawing["groups"]]


def collisions(editor) -> list[tuple[str, str]]:
    """Titles of nodes that lie upon each other, and of nodes and groups where the node is neither in nor out."""
    nodes, groups = places(editor)
    upon = [(a.title, b.title) for a, b in itertools.combinations(nodes.values(), 2) if a.meets(b)]
    across = [
        (node.title, group.title)
        for node in nodes.values()
        for group in groups
        if node.meets(group) and not group.holds(node)
    ]
    groups_upon = [(a.title, b.title) for a, b in itertools.combinations(groups, 2) if a.meets(b)]
    return upon + across + groups_upon
