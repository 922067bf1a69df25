"""ComfyUI's graph editor in a real browser: load a workflow, read it back, run it, take pictures of it.

    with Server() as server, Editor(server.url) as editor:
        editor.load(Path("workflows/quickstart.json"))
        prompt = editor.prompt()

Needs Playwright and an installed Chromium or Chrome (`devtools/browser_setup.py`). From the command line, with a server
of its own:

    python -m tests.browser.editor workflows/quickstart.json --screenshot graph.png

README's picture of the graph, after a complete run:

    python -m tests.browser.editor workflows/quickstart.json --run --screenshot assets/graph.png
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from pathlib import Path

from devtools.browser_setup import missing, program

OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SETTINGS = {  # only for this browser: the server's are left as they are
    "Comfy.TutorialCompleted": True,  # a new user would be shown a choice of templates on top of the graph
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Minimap.Visible": False,
    "Comfy.Pointer.DoubleClickTime": 1000,  # ms; on a busy machine the second click arrives late
    "Comfy.Workflow.ShowMissingModelsWarning": False,  # a dialog over the graph that has just been opened
    "Comfy.VueNodes.Enabled": False,  # the classic renderer, which paints nodes on a canvas
    "LiteGraph.Canvas.MinFontSizeForLOD": 0,  # draw texts at any zoom
}
NODES_2 = {"Comfy.VueNodes.Enabled": True}  # the renderer whose nodes are elements of the page
MESSAGE = 4  # seconds to wait for the editor's message about missing nodes
START = 120  # seconds until the editor is there; its first start compiles a lot of JavaScript


class BrowserError(RuntimeError):
    """The editor did not do what it was asked for."""


class Editor:
    """The editor's page at a server's `url`. `size`: the window's, pixels. `settings`: the editor's own, on top of
    `SETTINGS`, e.g. `{"Comfy.Locale": "zh"}`. Use it in a `with` block.

    `page`: Playwright's page. `errors`: uncaught exceptions and errors of the console so far, as texts.
    Raises `BrowserError` where the browser is missing or the editor does not appear.
    """

    def __init__(self, url: str, size: tuple[int, int] = (1600, 1000), settings: dict | None = None):
        self._url, self._size = url, size
        self._settings = SETTINGS | (settings or {})
        self.errors: list[str] = []

    def __enter__(self) -> Editor:
        lacking = missing()
        if lacking:
            raise BrowserError(lacking + ".")
        from playwright.sync_api import sync_playwright

        self._playwright = sync_playwright().start()
        try:
            self._browser = self._playwright.chromium.launch(executable_path=program(), args=list(OPTIONS))
            width, height = self._size
            self.page = self._browser.new_page(viewport={"width": width, "height": height})
            self.page.on("pageerror", lambda error: self.errors.append(str(error)))
            self.page.on("console", self._hear)
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        if hasattr(self, "_browser"):
            self._browser.close()
        self._playwright.stop()

    def load(self, workflow: Path, keep_message: bool = False) -> None:
        """Shows a workflow file, in the editor's own format or in API format. Should the editor have a message about
        missing nodes, it is closed, unless `keep_message`."""
        content = json.loads(workflow.read_text(encoding="utf-8"))
        if "nodes" in content:
            call = "([content, name]) => app.loadGraphData(content, true, true, name)"
        else:
            call = "([content, name]) => app.loadApiJson(content, name)"
        self.page.evaluate(call, [content, workflow.stem])
        self.page.wait_for_timeout(500)  # widgets of the page (prompt boxes, videos) follow a moment later
        self.page.evaluate("() => { if (app.canvas.graph !== app.graph) app.canvas.setGraph(app.graph) }")
        if self.missing_nodes() and not keep_message:
            self._close_message()

    def version(self) -> str:
        """The front end's."""
        return self.page.evaluate("() => window.__COMFYUI_FRONTEND_VERSION__")

    def nodes_2(self) -> bool:
        """Whether nodes are elements of the page, and not painted on a canvas."""
        return bool(self.page.evaluate("() => LiteGraph.vueNodesMode"))

    def missing_nodes(self) -> list[str]:
        """Types of the nodes that the server does not know."""
        return self.page.evaluate(
            "() => app.graph.nodes.map(n => n.type).filter(type => !LiteGraph.registered_node_types[type])"
        )

    def close_dialogs(self) -> None:
        """Closes the editor's own messages, such as those about missing nodes and models. They come late on a busy
        machine, and an older editor shows no new one while the last is closing."""
        for _ in range(20):
            self.page.keyboard.press("Escape")
            self.page.wait_for_timeout(500)
            if not self._shows_dialog():
                return

    def videos(self) -> list[dict]:
        """The videos that nodes show: `source` (an address), `size` (width, height in pixels; 0 until it is loaded)."""
        return self.page.evaluate(
            "() => [...document.querySelectorAll('video')]"
            ".map(v => ({ source: decodeURIComponent(v.currentSrc), size: [v.videoWidth, v.videoHeight] }))"
        )

    def text(self, node: int) -> str:
        """What a node tells of its last run, in whichever of the two places: the front end's or the pack's own."""
        names = ["$$node-text-preview", "EI2 shown text"]
        return self.page.evaluate(
            "([id, names]) => app.graph.getNodeById(id).widgets.filter(w => names.includes(w.name))"
            ".map(w => w.value).join(' | ')",
            [node, names],
        )

    def prompt(self) -> dict:
        """The workflow in API format, as the Run button sends it."""
        return self.page.evaluate("async () => (await app.graphToPrompt()).output")

    def serialize(self) -> dict:
        """The workflow in the editor's own format, as its Save does."""
        return json.loads(self.page.evaluate("() => JSON.stringify(app.graph.serialize())"))

    def set_widget(self, node: int, name: str, value: object) -> None:
        """Sets an input of a node as if its user had typed it."""
        done = self.page.evaluate(
            """([id, name, value]) => {
                const node = app.graph.getNodeById(id), widget = node?.widgets?.find(w => w.name === name)
                if (!widget) return false
                widget.value = value
                widget.callback?.(value, app.canvas, node)
                app.graph.setDirtyCanvas(true, true)
                return true
            }""",
            [node, name, value],
        )
        if not done:
            raise BrowserError(f"Node {node} has no input {name} to set.")

    def open_subgraph(self, node: object) -> None:
        """Shows what is in a node that stands for a subgraph."""
        self.page.evaluate(
            "id => { const node = app.graph.getNodeById(id); app.canvas.openSubgraph(node.subgraph, node) }", node
        )
        self.page.wait_for_timeout(500)

    def fit(self, margin: int = 20, left: int = 60, top: int = 140, bottom: int = 80) -> dict:
        """Moves and zooms so that the whole graph is seen, free of the editor's bars (`left`, `top`, `bottom`: their
        pixels; messages about jobs count as one). Returns where it is then, as `screenshot` takes it for `clip`."""
        return self.page.evaluate(
            """([margin, left, top, bottom]) => {
                const { nodes, groups } = app.canvas.graph
                const items = [...nodes, ...groups].map(i => i.boundingRect ?? i._bounding)
                const x0 = Math.min(...items.map(b => b[0])), y0 = Math.min(...items.map(b => b[1]))
                const x1 = Math.max(...items.map(b => b[0] + b[2])), y1 = Math.max(...items.map(b => b[1] + b[3]))
                const w = innerWidth - left - 2 * margin, h = innerHeight - top - bottom - 2 * margin
                const scale = Math.min(w / (x1 - x0), h / (y1 - y0)), ds = app.canvas.ds
                ds.scale = scale
                ds.offset[0] = (left + margin + (w - scale * (x1 - x0)) / 2) / scale - x0
                ds.offset[1] = (top + margin + (h - scale * (y1 - y0)) / 2) / scale - y0
                app.canvas.setDirty(true, true)
                const x = (x0 + ds.offset[0]) * scale - margin / 2, y = (y0 + ds.offset[1]) * scale - margin / 2
                return { x, y, width: scale * (x1 - x0) + margin, height: scale * (y1 - y0) + margin }
            }""",
            [margin, left, top, bottom],
        )

    def screenshot(self, file: Path, wait: float = 0.7, **options) -> None:
        """`options`: Playwright's, e.g. `clip`, `type="jpeg"`, `quality`."""
        self.page.wait_for_timeout(wait * 1000)
        self.page.screenshot(path=file, **options)

    def run(self, timeout: float = 900) -> str:
        """Presses Run's key (Ctrl-Enter) and waits for the end; returns the last event: `execution_success`,
        `execution_error`, `execution_interrupted`."""
        self.start_run()
        end = time.monotonic() + timeout
        while (outcome := self.outcome()) is None:
            if time.monotonic() > end:
                raise BrowserError(f"The run has not ended within {timeout:.0f} s.")
            self.page.wait_for_timeout(200)
        return outcome

    def start_run(self) -> None:
        """Starts a run and returns at once."""
        self.listen()
        self.page.keyboard.press("Control+Enter")

    def listen(self) -> None:
        """Makes `outcome` tell of the run that is started next."""
        self.page.evaluate(
            """() => {
                window.runOutcome = null
                for (const kind of ['execution_success', 'execution_error', 'execution_interrupted'])
                    app.api.addEventListener(kind, () => { window.runOutcome = kind }, { once: true })
            }"""
        )

    def outcome(self) -> str | None:
        """How the run begun by `start_run` has ended, None while it goes on."""
        return self.page.evaluate("() => window.runOutcome")

    def _close_message(self) -> None:
        """Closes the editor's message about missing nodes. Older editors show it on top of the graph, some time
        after the workflow; newer ones show it beside the graph."""
        for _ in range(2 * MESSAGE):
            if self._shows_dialog():
                return self.close_dialogs()
            self.page.wait_for_timeout(500)

    def _shows_dialog(self) -> bool:
        return any(dialog.is_visible() for dialog in self.page.locator("[role=dialog]").all())

    def _hear(self, message) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} [{message.location.get('url', '')}]")

    def _open(self) -> None:
        self.page.route(re.compile(r"/settings(/[^/]*)?$"), self._answer_settings)
        self.page.add_init_script("localStorage.setItem('vueNodesBannerDismissed', 'true')")
        self.page.goto(self._url)
        ready = "() => window.app?.extensionManager && app.graph && app.canvas"
        self.page.wait_for_function(ready, timeout=START * 1000)
        ready = "() => LiteGraph.registered_node_types['KSampler'] && !document.querySelector('.p-blockui-mask')"
        self.page.wait_for_function(ready, timeout=START * 1000)
        self.page.wait_for_timeout(1500)  # the workflow of the last visit, or the default one, is still being opened

    def _answer_settings(self, route) -> None:
        """Lets the page see its settings on top of the server's, and keeps what it sets from the server."""
        if route.request.method == "GET":
            answer = route.fetch()
            route.fulfill(response=answer, json=answer.json() | self._settings)
        else:
            route.fulfill(status=200, body="")


def main() -> int:
    parser = argparse.ArgumentParser(description="Shows a workflow in ComfyUI's graph editor and takes a picture.")
    parser.add_argument("workflow", type=Path)
    parser.add_argument("--screenshot", type=Path, help="where to put the picture (.png or .jpg)")
    parser.add_argument("--run", action="store_true", help="run the workflow first")
    parser.add_argument("--prompt", type=Path, help="where to put the workflow in API format")
    parser.add_argument("--url", help="a running server's; by default one is started")
    options = parser.parse_args()

    from devtools.environment import SetupError
    from devtools.server import Server, ServerError

    def show(url: str) -> None:
        with Editor(url) as editor:
            editor.load(options.workflow)
            if options.run and (outcome := editor.run()) != "execution_success":
                raise BrowserError(f"The run has ended with {outcome}.")
            clip = editor.fit()
            if options.screenshot:
                editor.screenshot(options.screenshot, wait=3, clip=clip)
            if options.prompt:
                options.prompt.write_text(json.dumps(editor.prompt(), indent=2) + "\n", encoding="utf-8")
            for node in editor.missing_nodes():
                print(f"Unknown node: {node}", file=sys.stderr)
            for error in editor.errors:
                print(f"Browser: {error}", file=sys.stderr)

    try:
        if options.url:
            show(options.url)
        else:
            with Server() as server:
                show(server.url)
    except (BrowserError, ServerError, SetupError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
