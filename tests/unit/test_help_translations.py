"""Every help page has a Chinese one that follows it: `docs/<node>/zh.md`. In Chinese, the editor looks there first."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from devtools.environment import ROOT
from devtools.locales import CHINESE, NUMBER, read

FOLDER = ROOT / "web" / "docs"
PAGES = sorted(FOLDER.glob("*.md"))
CORE = {  # ComfyUI's own nodes and their inputs, as its editor calls them in Chinese
    *("VAE编码", "VAE解码", "CLIP文本编码", "Checkpoint加载器（简易）", "加载CLIP", "加载CLIP视觉", "自定义采样器"),
    *("加载视频", "创建视频", "保存视频", "加载图像", "预览任意", "上下文窗口（手动）", "维度"),
    *("扩展遮罩", "反转遮罩", "遮罩转换为图像", "图像转换为遮罩", "模糊图像"),
    *("合成图像（遮罩）", "目标图像", "来源图像"),
}
PLAIN = {"测得", "blue", "car", "street"}  # in quotes, but no names


def chinese(page: Path) -> str:
    return (FOLDER / page.stem / "zh.md").read_text(encoding="utf-8")


@cache
def names() -> set[str]:
    """The Chinese names of all nodes (with and without what stands in brackets at the end), inputs and outputs."""
    found = set()
    for node in read("zh").values():
        title = node["display_name"]
        found |= {title, title.partition("（")[0]}
        found |= {slot["name"] for slot in (*node["inputs"].values(), *node["outputs"].values())}
    return found


@cache
def keys() -> set[str]:
    """The English names of all inputs and outputs; the Chinese pages have them less often."""
    nodes = read("en").values()
    core = {"destination", "source", "mask", "dim"}
    return core.union(*(node["inputs"] for node in nodes)) | {
        output["name"] for node in nodes for output in node["outputs"].values()
    }


def parts(text: str) -> dict[str, list]:
    """What a translation leaves as it is, by kind: in order, or sorted where the order may differ."""
    last = text.rpartition("\n## ")[2]
    rows = [line.split("|")[1] for line in last.splitlines() if line.startswith("|")]
    return {
        "headings": re.findall(r"^#+(?= )", text, re.M),
        "pictures": re.findall(r"!\[[^]]+\]\(([^)]+)\)", text),
        "links": sorted(re.findall(r"(?<!!)\[[^]]+\]\(([^)]+)\)", text)),
        "columns of table rows": [line.count("|") for line in text.splitlines() if line.startswith("|")],
        "items of lists": re.findall(r"^(\*|\d\.) ", text, re.M),
        "numbers": sorted(set(NUMBER.findall(text))),
        "values": sorted(set(re.findall(r"`([^`]+)`", text)) - keys()),
        "messages": re.findall(r'"([^"]+)"', "".join(rows)),
    }


def test_no_page_lacks_or_is_left_over():
    assert {file.relative_to(FOLDER).as_posix() for file in FOLDER.rglob("*.md")} == {
        name for page in PAGES for name in (page.name, f"{page.stem}/zh.md")
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_follows(page):
    assert parts(chinese(page)) == parts(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_line_is_chinese(page):
    lines = [line for line in chinese(page).splitlines() if line.strip("|-: ")]
    named = read("zh")[page.stem]["display_name"]
    assert lines[0] == f"# {named}"
    assert [line for line in lines if not CHINESE.search(line)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_inputs_and_outputs_have_both_names(page):
    """The editor shows the Chinese one; front end 1.32 shows the English one, which is also in messages."""
    text, english, translated = chinese(page), read("en")[page.stem], read("zh")[page.stem]
    slots = [(key, entry["name"]) for key, entry in translated["inputs"].items()]
    slots += [(english["outputs"][i]["name"], entry["name"]) for i, entry in translated["outputs"].items()]
    assert [f"`{key}`（{name}）" for key, name in slots if f"`{key}`（{name}）" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_quoted_names_are_those_of_the_editor(page):
    assert set(re.findall("“([^”]+)”", chinese(page))) - names() - CORE - PLAIN == set()
