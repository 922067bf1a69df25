"""Text from files, names and prompts on its way to the graph editor, the log and the host's report of errors."""

from __future__ import annotations

import json
import re
import traceback

import pytest

from .hostile import MARKUP

pytestmark = pytest.mark.host

# what front end 1.32.9 makes of a node's text before it puts it into the page, as its source says
URL = re.compile(
    r"(\b(https?|ftp|file)://[-A-Z0-9+&@#/%?=~_|!:,.;]*[-A-Z0-9+&@#/%?=~_|])"
    r"|(\bwww\.[-A-Z0-9+&@#/%?=~_|!:,.;]*[-A-Z0-9+&@#/%?=~_|])",
    re.IGNORECASE,
)
OWN = re.compile(
    r'<a href="[^"<>]*" target="_blank" rel="noopener noreferrer"( class="text-primary-400 hover:underline")?>'
    r"|</a>|<br />"
)

TEXTS = {  # text -> what a reader is to see, on one line
    "a jeep on a road – ünïcode, 中文 🚙": "a jeep on a road – ünïcode, 中文 🚙",
    "loss < 0.5 & > 0.1": "loss ‹ 0.5 & > 0.1",
    MARKUP: "‹img src=x onerror=alert(1)>",
    "<<script>alert(1)</script>": "‹‹script>alert(1)‹/script>",
    "&lt;img src=x onerror=alert(1)&gt;": "&lt;img src=x onerror=alert(1)&gt;",
    "<[[img src=x onerror=alert(1) |y]]\n>": "‹[ [img src=x onerror=alert(1) |y]]\n>",
    'http://a/[[" onmouseover=alert(1) x="|y]]': 'http://a/[ [" onmouseover=alert(1) x="|y]]',
    "__LNK7__ __lnk1__": "_ _LNK7__ _ _lnk1__",
    'www.a.b"onmouseover=alert(1)': 'www.a.b"onmouseover=alert(1)',
    "caf\udc82.mp4": "caf\\x82.mp4",
    "\ud83d half": "\\ud83d half",
    "\u202egnp.exe": "\\u202egnp.exe",
    "\x1b[2J\x00\x07": "\\x1b[2J\\x00\\x07",
    "two\r\nlines\rand\ttabs": "two\nlines\\x0dand\ttabs",
    "👨\u200d👩\u200d👧 می\u200cخواهم": "👨\u200d👩\u200d👧 می\u200cخواهم",
}


def page_of(text: str) -> str:
    """The HTML that front end 1.32.9 makes of it."""
    links = []

    def keep(found):
        links.append(found.groups())
        return f"__LNK{len(links) - 1}__"

    def link(found):
        address = found[3] or found[1]
        href = f"http://{address}" if found[3] else address
        style = 'target="_blank" rel="noopener noreferrer" class="text-primary-400 hover:underline"'
        return f'<a href="{href}" {style}>{address}</a>'

    def put_back(found):
        label, address = links[int(found[1])]
        label = label.replace("<", "&lt;").replace(">", "&gt;")
        if not re.match(r"https?://", address, re.IGNORECASE):
            return label
        address = address.replace('"', "&quot;")
        return f'<a href="{address}" target="_blank" rel="noopener noreferrer">{label}</a>'

    page = re.sub(r"\[\[([^|\]]+)\|([^\]]+)\]\]", keep, text)
    page = URL.sub(link, page).replace("\n", "<br />")
    return re.sub(r"__LNK(\d+)__", put_back, page)


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_it_reads_well_and_is_no_markup(pack, text):
    plain = pack("host.ui").plain
    assert plain(text) == TEXTS[text] == plain(plain(text))
    plain(text).encode()
    assert "<" not in OWN.sub("", page_of(plain(text)))


def test_the_attacks_are_attacks():
    """Without `plain` these become markup."""
    for text in (MARKUP, "<[[img src=x onerror=alert(1) |y]]\n>", 'http://a/[[" onmouseover=alert(1) x="|y]]'):
        assert "<" in OWN.sub("", page_of(text)), text
    with pytest.raises(IndexError):
        page_of("__LNK7__")


def test_it_has_an_end(pack):
    plain = pack("host.ui")
    assert len(plain.plain("x" * 10**7)) == plain.MOST_LETTERS and plain.plain("x" * 10**7).endswith("…")


def test_whatever_a_node_raises_or_refuses_is_plain(pack):
    """A name that is no Unicode in a message would end the host's worker; it prints what an error came from, too."""
    from comfy_api.latest import io

    class Raising:
        @classmethod
        def define_schema(cls):
            return io.Schema("Raising", inputs=[])

        @classmethod
        def execute(cls, name):
            try:
                raise KeyError(name)
            except KeyError as error:
                raise ValueError(f"There is no {name}.") from error

    class Refusing(Raising):
        @classmethod
        def validate_inputs(cls, name) -> None:
            raise ValueError(f"There is no {name}.")

        execute = Raising.execute

    for node in (Raising, Refusing):
        pack("host.guard").guarded(node)
    for text in TEXTS:
        with pytest.raises(ValueError) as caught:
            Raising.execute(text)
        "".join(traceback.format_exception(caught.value)).encode()
        assert "<" not in str(caught.value) and "<" not in Refusing.validate_inputs(text)
        json.dumps(Refusing.validate_inputs(text), ensure_ascii=False).encode()


def test_every_node_is_guarded(pack):
    """All that the host calls and that may raise what it has from a user."""
    nodes = pack("nodes")
    assert len(nodes.NODES) >= 17
    for node in nodes.NODES:
        for name in ("execute", "validate_inputs", "fingerprint_inputs"):
            if name in vars(node):
                assert hasattr(vars(node)[name].__func__, "__wrapped__"), (node, name)
