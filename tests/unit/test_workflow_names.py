"""The bundled workflows' files belong together, and every workflow that a text names is there."""

from __future__ import annotations

import json
import re

from PIL import Image

from devtools.environment import ROOT
from tests.titles import TITLED

WORKFLOWS = ROOT / "workflows"
NAMES = {path.stem for path in WORKFLOWS.glob("*.json")}
NAMED = re.compile(r"workflows?\*{0,2} [`*\"]([a-z0-9_]+)[`*\"]", re.IGNORECASE)


def notes(path) -> str:
    graph = json.loads(path.read_text(encoding="utf-8"))
    return "\n".join(node["widgets_values"][0] for node in graph["nodes"] if node["type"] == "MarkdownNote")


def test_each_has_its_twin_and_a_square_picture():
    assert NAMES == {path.stem for path in (WORKFLOWS / "api").glob("*.json")}
    assert NAMES == {path.stem for path in WORKFLOWS.glob("*.jpg")}
    for name in NAMES:
        with Image.open(WORKFLOWS / f"{name}.jpg") as picture:
            assert picture.width == picture.height >= 256, name


def test_each_has_a_title():
    assert len(TITLED) == len(NAMES) and {name for name, _ in TITLED} == NAMES
    assert len({title for _, title in TITLED}) == len(NAMES)


def test_named_workflows_are_there():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "web" / "docs").glob("*.md")]
    texts = {path.name: path.read_text(encoding="utf-8") for path in pages}
    texts |= {path.name: notes(path) for path in WORKFLOWS.glob("*.json")}
    found = {(place, name) for place, text in texts.items() for name in NAMED.findall(text)}
    assert len(found) > 10 and {entry for entry in found if entry[1] not in NAMES} == set()
