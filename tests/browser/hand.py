"""What a user's hand does in the graph editor: mouse and keys on what is seen. The page is asked only where things are.

    hand = Hand(editor)
    hand.new_workflow()
    source = hand.add("EI2 Load Video", 100, 200)
    hand.connect(source, "images", encoder, "pixels")

Places are pixels of the window; nodes are named by their ids in the graph.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from .editor import BrowserError, Editor

PATIENCE = 15  # seconds until something is there
MODIFIER = "Control"
SEARCH = re.compile(r"^Search( Nodes|\.\.\.)")  # in the library's box, by the front end's version


class Hand:
    def __init__(self, editor: Editor):
        self.editor, self.page = editor, editor.page

    def press(self, button: str) -> None:
        """Clicks the button of that name (what a screen reader calls it)."""
        self.page.get_by_role("button", name=button, exact=True).first.click()

    def new_workflow(self) -> None:
        self.press("Create a new blank workflow")
        self._wait("() => app.graph.nodes.length === 0")
        self.page.wait_for_timeout(500)

    def zoom_out(self, scale: float, x: float, y: float) -> None:
        """Turns the wheel over that place until a pixel of the graph is at most `scale` pixels of the window."""
        self.page.mouse.move(x, y)
        while self.page.evaluate("() => app.canvas.ds.scale") > scale:
            self.page.mouse.wheel(0, 120)
            self.page.wait_for_timeout(150)

    def search(self, words: str, x: float, y: float) -> None:
        """Opens the node search by a double click on the empty canvas, and types."""
        self._double_click(x, y)
        self._wait("() => document.activeElement?.tagName === 'INPUT'")  # keys that come earlier are shortcuts
        self.page.keyboard.type(words)

    def leave_search(self) -> None:
        self.page.keyboard.press("Escape")
        self.page.get_by_role("option").first.wait_for(state="hidden", timeout=PATIENCE * 1000)
        self.page.wait_for_timeout(500)  # it fades out, and takes clicks until then

    def add(self, name: str, x: float, y: float) -> object:
        """Finds the node by its full name in the search and places its upper left corner; returns its id."""
        before = self._ids()
        self.search(name, x, y)
        option = self.page.get_by_role("option").filter(has=self.page.get_by_text(name, exact=True)).first
        option.click(timeout=PATIENCE * 1000)
        node = self._new(before)
        self.page.mouse.click(x, y)  # newer front ends let a new node follow the mouse until it is put down
        self.page.wait_for_timeout(100)
        self.move(node, x, y)
        return node

    def move(self, node: object, x: float, y: float) -> None:
        """Drags a node by its title bar, so that its upper left corner (below the title) is there."""
        grip = self._place("return [node.pos[0] + node.size[0] / 2, node.pos[1] - 15]", node)
        corner = self._place("return node.pos", node)
        if max(abs(corner[0] - x), abs(corner[1] - y)) > 2:
            self._drag(grip, (grip[0] + x - corner[0], grip[1] + y - corner[1]))

    def drag_from_library(self, name: str, x: float, y: float, on_sight: Callable[[], None] = lambda: None) -> object:
        """Finds the node in the sidebar's library, calls `on_sight`, drags the node there and returns its id."""
        before = self._ids()
        self.press("Node Library (n)")
        box = self.page.get_by_placeholder(SEARCH).first
        box.click()
        self.page.keyboard.type(name)
        entry = self.page.get_by_role("treeitem").filter(has=self.page.get_by_text(name, exact=True)).last
        entry.wait_for(timeout=PATIENCE * 1000)
        self.page.wait_for_timeout(500)
        on_sight()
        self._drag(self._middle(entry), (x, y))
        node = self._new(before)
        self.press("Node Library (n)")
        return node

    def connect(self, origin: object, output: str, target: object, name: str) -> None:
        """Drags a link from an output to an input. Raises `BrowserError` where they are not connected then."""
        self._drag(self.slot(origin, output, "output"), self.slot(target, name, "input"))
        connected = self.page.evaluate(
            """([origin, output, target, name]) => {
                const node = app.graph.getNodeById(target), slot = node.inputs.findIndex(i => i.name === name)
                const link = app.graph.links.get(node.inputs[slot].link)
                const name_of = link => app.graph.getNodeById(origin).outputs[link.origin_slot].name
                return link?.origin_id == origin && name_of(link) === output
            }""",
            [origin, output, target, name],
        )
        if not connected:
            raise BrowserError(f"Dragging {output} of node {origin} to {name} of node {target} has not connected them.")

    def write(self, node: object, name: str, text: str) -> None:
        """Replaces what is in a text box."""
        self.page.mouse.click(*self._box(node, name))
        self.page.keyboard.press(f"{MODIFIER}+A")
        self.page.keyboard.type(text)

    def set_number(self, node: object, name: str, value: float) -> None:
        """Double-clicks a number and types another one."""
        self._double_click(*self.widget(node, name))
        field = self.page.locator(".graphdialog input")
        field.wait_for(timeout=PATIENCE * 1000)
        field.press(f"{MODIFIER}+A")
        self.page.keyboard.type(str(value))
        self.page.keyboard.press("Enter")
        field.wait_for(state="detached", timeout=PATIENCE * 1000)

    def select(self, node: object) -> None:
        """Clicks its title bar."""
        self.page.mouse.click(*self._place("return [node.pos[0] + node.size[0] / 2, node.pos[1] - 15]", node))
        self._wait("id => app.canvas.selectedItems.has(app.graph.getNodeById(id))", node)

    def play(self, node: object) -> None:
        """Clicks the video that a node shows, which starts it."""
        self.page.mouse.click(*self._box(node, "video-preview"))

    def slot(self, node: object, name: str, kind: str) -> tuple[float, float]:
        """Where an `input` or `output` is. Raises `BrowserError` where there is none of that name."""
        return self._place(
            """const [name, kind] = names
               const slot = node[kind + 's'].findIndex(s => s.name === name)
               return slot < 0 ? null : kind === 'input' ? node.getInputPos(slot) : node.getOutputPos(slot)""",
            node,
            f"{kind} {name}",
            name,
            kind,
        )

    def widget(self, node: object, name: str) -> tuple[float, float]:
        """Where the middle of a value is."""
        return self._place(
            """const widget = node.widgets?.find(w => w.name === names[0])
               return widget ? [node.pos[0] + node.size[0] / 2, node.pos[1] + widget.y + 10] : null""",
            node,
            f"value {name}",
            name,
        )

    def _box(self, node: object, name: str) -> tuple[float, float]:
        """The middle of a text box of the page."""
        place = self.page.evaluate(
            """([id, name]) => {
                const box = app.graph.getNodeById(id).widgets.find(w => w.name === name).element.getBoundingClientRect()
                return [box.x + box.width / 2, box.y + box.height / 2]
            }""",
            [node, name],
        )
        return tuple(place)

    def _place(self, script: str, node: object, what: str = "place", *names: str) -> tuple[float, float]:
        """`script`: returns a place in the graph, null where there is none; it sees `node` and `names`."""
        place = self.page.evaluate(
            f"""([id, names]) => {{
                const node = app.graph.getNodeById(id)
                const find = () => {{ {script} }}
                const place = find()
                if (!place) return null
                const [x, y] = app.canvas.ds.convertOffsetToCanvas([...place])
                const box = app.canvas.canvas.getBoundingClientRect()
                return [box.x + x, box.y + y]
            }}""",
            [node, names],
        )
        if place is None:
            raise BrowserError(f"Node {node} has no {what}.")
        return tuple(place)

    def _double_click(self, x: float, y: float) -> None:
        self.page.mouse.dblclick(x, y, delay=40)  # two clicks of the same millisecond count as one

    def _drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        mouse = self.page.mouse
        mouse.move(*start)
        mouse.down()
        mouse.move((start[0] + end[0]) / 2, (start[1] + end[1]) / 2, steps=4)
        mouse.move(*end, steps=4)
        self.page.wait_for_timeout(60)
        mouse.up()
        self.page.wait_for_timeout(60)

    def _wait(self, condition: str, argument: object = None) -> None:
        self.page.wait_for_function(condition, arg=argument, timeout=PATIENCE * 1000)

    def _middle(self, element) -> tuple[float, float]:
        box = element.bounding_box()
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def _ids(self) -> list:
        return self.page.evaluate("() => app.graph.nodes.map(n => n.id)")

    def _new(self, before: list) -> object:
        self._wait("before => app.graph.nodes.some(n => !before.includes(n.id))", before)
        self.page.wait_for_timeout(200)
        (new,) = set(self._ids()) - set(before)
        return new
