"""One real ComfyUI server for all tests here, and pictures of what they have seen.

Skipped where Playwright or a browser is missing (`devtools/browser_setup.py` says what to do then). With the
environment variable COMFYUI_FRONT_END they see another front end than ComfyUI's own (`devtools/front_end.py`).
The pictures are kept in `test-output/screenshots`, a folder per version of the front end.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from devtools.browser_setup import missing
from devtools.environment import ROOT, SetupError
from devtools.server import Server

from .editor import Editor
from .short_run import provide

HERE = Path(__file__).resolve().parent
SCREENSHOTS = ROOT / "test-output" / "screenshots"
WORKFLOWS = ROOT / "workflows"

taken: list[Path] = []


def pytest_collection_modifyitems(items) -> None:
    lacking = missing()
    for item in items:
        if HERE in item.path.parents:
            for mark in (pytest.mark.browser, pytest.mark.server, pytest.mark.slow):
                item.add_marker(mark)
            if lacking:
                item.add_marker(pytest.mark.skip(reason=lacking))


def pytest_terminal_summary(terminalreporter) -> None:
    if taken:
        terminalreporter.write_line(f"{len(taken)} pictures of the editor are in {taken[0].parent}")


@pytest.fixture(scope="session")
def server():
    try:
        with Server() as server:
            provide(server)
            yield server
    except SetupError as error:
        raise pytest.UsageError(str(error)) from error


@pytest.fixture(scope="module")
def editor(server):
    with Editor(server.url) as editor:
        yield editor


@pytest.fixture
def picture() -> Callable[[Editor, str], None]:
    """`picture(editor, name)`: keeps what the window shows now."""

    def take(editor: Editor, name: str, **options) -> None:
        file = SCREENSHOTS / editor.version() / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        editor.screenshot(file, **options)
        taken.append(file)

    return take
