"""The template browser offers the workflows by use, with readable titles and with their pictures, and opens them."""

from __future__ import annotations

import base64
import re

from devtools.environment import ROOT
from tests.titles import TITLED

from .hand import Hand

WORKFLOWS = ROOT / "workflows"
TITLES = [f"{number:02} {title} - EI² video edit" for number, (_, title) in enumerate(TITLED, 1)]
PACK = "EI2"  # the category's name is the pack's folder's
LOAD_PICTURE = """async address => {
    const picture = new Image()
    picture.src = address
    await picture.decode()
    return picture
}"""
# Whether the card that a title is on shows that picture. For missing ones, the browser has one of its own. Pixels are
# compared, for the shown picture is a `blob:`, and the server's rules for pages forbid to read its bytes.
SHOWN_BESIDE = """([title, picture]) => {
    let card = title
    while (card && !card.querySelector('img')) card = card.parentElement
    const pictures = [...card?.querySelectorAll('img') ?? []]
    if (pictures.length !== 1 || !pictures[0].naturalWidth) return false
    const [shown, expected] = [pictures[0], picture].map(picture => {
        const size = [picture.naturalWidth, picture.naturalHeight]
        const context = new OffscreenCanvas(...size).getContext('2d')
        context.drawImage(picture, 0, 0)
        return [...size, ...new Uint32Array(context.getImageData(0, 0, ...size).data.buffer)]
    })
    return shown.length === expected.length && shown.every((value, i) => value === expected[i])
}"""


def test_templates_have_titles_and_pictures_and_open(editor, picture):
    page = editor.page
    Hand(editor).press("Templates")
    dialog = page.get_by_role("dialog")
    dialog.get_by_text(PACK, exact=True).click()
    dialog.get_by_text(TITLES[0], exact=True).first.wait_for()
    picture(editor, "templates")
    for (file, _), name in zip(TITLED, TITLES):  # pictures are loaded as they come into view
        title = dialog.get_by_text(name, exact=True).first
        title.scroll_into_view_if_needed()
        content = base64.b64encode((WORKFLOWS / f"{file}.jpg").read_bytes()).decode()
        wanted = page.evaluate_handle(LOAD_PICTURE, f"data:image/jpeg;base64,{content}")
        page.wait_for_function(SHOWN_BESIDE, arg=[title.element_handle(), wanted])
    shown = re.findall(r"^\d\d .+ - EI² video edit$", dialog.inner_text(), re.MULTILINE)
    assert list(dict.fromkeys(shown)) == TITLES
    picture(editor, "templates-end")
    dialog.get_by_text(TITLES[0], exact=True).first.scroll_into_view_if_needed()
    dialog.get_by_text(TITLES[0], exact=True).first.click()
    dialog.wait_for(state="detached")
    page.wait_for_function("() => app.graph.nodes.some(node => node.type === 'EI2_LoadVideo')")
    page.wait_for_timeout(1000)
    picture(editor, "templates-opened")
    types = sorted(node["type"] for node in editor.serialize()["nodes"])
    editor.load(WORKFLOWS / "quickstart.json")
    assert types == sorted(node["type"] for node in editor.serialize()["nodes"])


def test_templates_are_found_by_what_they_are_for(editor):
    page = editor.page
    Hand(editor).press("Templates")
    dialog = page.get_by_role("dialog")
    dialog.get_by_placeholder("Search").first.fill("video edit")
    dialog.get_by_text(TITLES[0], exact=True).first.wait_for()
    page.keyboard.press("Escape")
