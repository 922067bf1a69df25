"""What a real server hands to the editor: help pages with their pictures, and the nodes' texts in its languages."""

from __future__ import annotations

import json
import re
import urllib.request

import pytest

from devtools.environment import ROOT
from devtools.locales import FOLDER, read

pytestmark = pytest.mark.server

DOCS = ROOT / "web" / "docs"
PAGES = sorted(DOCS.rglob("*.md"))  # English: <node>.md; another language: <node>/<language>.md
LANGUAGES = sorted(folder.name for folder in FOLDER.iterdir())
WEB_BYTES = 1_000_000


@pytest.fixture(scope="module")
def ours(session_client) -> dict:
    return {name: info for name, info in session_client.object_info().items() if name.startswith("EI2_")}


@pytest.fixture(scope="module")
def fetch(server):
    """`fetch(path)`: the answer's content and type. Raises where it is not found."""

    def fetch(path: str) -> tuple[bytes, str]:
        with urllib.request.urlopen(server.url + path, timeout=30) as answer:
            return answer.read(), answer.headers.get_content_type()

    return fetch


def test_every_node_has_a_page_in_every_language(ours):
    expected = {
        f"{node}.md" if language == "en" else f"{node}/{language}.md" for node in ours for language in LANGUAGES
    }
    assert {page.relative_to(DOCS).as_posix() for page in PAGES} == expected


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).with_suffix("").as_posix())
def test_page_is_served_and_complete(fetch, ours, page):
    """Under the address the editor asks for; every input and output is explained, every picture is there. The editor
    looks for a page's pictures in `docs`, also for a page in a folder of its own."""
    folder = "/extensions/EI2/docs"
    text = fetch(f"{folder}/{page.relative_to(DOCS).as_posix()}")[0].decode("utf-8")
    assert text == page.read_text(encoding="utf-8")
    node, language = (page.stem, "en") if page.parent == DOCS else (page.parent.name, page.stem)
    info = ours[node]
    inputs = [key for kind, group in info["input_order"].items() if kind != "hidden" for key in group]
    unexplained = [name for name in (*inputs, *info["output_name"]) if f"`{name}`" not in text]
    assert unexplained == []
    assert text.startswith(f"# {read(language)[node]['display_name']}\n")
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text):
        content, kind = fetch(f"{folder}/{picture}")
        assert kind.startswith("image/") and len(content) > 500, picture


def test_pages_stay_small():
    assert sum(file.stat().st_size for file in (ROOT / "web").rglob("*") if file.is_file()) < WEB_BYTES


def test_no_picture_is_left_over():
    texts = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    pictures = {file.name for file in (DOCS / "pictures").iterdir()}
    assert pictures == set(re.findall(r"\(pictures/([^)]+)\)", texts))


@pytest.mark.parametrize("language", LANGUAGES)
def test_texts_are_served(fetch, ours, language):
    served = json.loads(fetch("/i18n")[0])[language]["nodeDefs"]
    assert served == read(language)
    assert set(served) == set(ours)
