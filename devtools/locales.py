"""The nodes' texts in the editor's languages: `locales/<language>/nodeDefs.json`, which ComfyUI passes to the editor.

English is generated from the nodes' schemas; every other language is written by hand and must follow it.

    python -m devtools.locales  # rewrites English, and lists where other languages do not follow

Run it in the development environment after a change of any node's name, inputs, outputs or tooltips.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys

from . import in_process
from .environment import ROOT

FOLDER = ROOT / "locales"
OTHERS = ("zh",)
SYNTAX = re.compile(r"[{}@|]")  # characters with a special meaning in the editor's messages (vue-i18n)
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e-\d+)?")
CHINESE = re.compile(r"[\u4e00-\u9fff]")


def schemas() -> list:
    """Every node's schema, in the pack's order. Call it after importing host and pack."""
    nodes = asyncio.run(in_process.pack("nodes").EI2Extension().get_node_list())
    return [node.GET_SCHEMA() for node in nodes]


def english(schemas: list) -> dict:
    """node id -> `display_name`, `description`, `inputs` (by id) and `outputs`
    (by position), in the editor's format."""
    return {
        schema.node_id: {
            "display_name": schema.display_name,
            "description": schema.description,
            "inputs": {
                entry.id: {"name": entry.display_name or entry.id, "tooltip": entry.tooltip} for entry in schema.inputs
            },
            "outputs": {
                str(i): {"name": entry.display_name, "tooltip": entry.tooltip} for i, entry in enumerate(schema.outputs)
            },
        }
        for schema in schemas
    }


def read(language: str) -> dict:
    return json.loads((FOLDER / language / "nodeDefs.json").read_text(encoding="utf-8"))


def flat(content: dict, path: str = "") -> dict[str, str]:
    """`{"a": {"b": "text"}}` becomes `{"a.b": "text"}`; an empty dict disappears."""
    texts = {}
    for key, value in content.items():
        place = f"{path}.{key}" if path else key
        texts |= flat(value, place) if isinstance(value, dict) else {place: value}
    return texts


def complaints(schemas: list, translated: dict) -> list[str]:
    """The places where a translation does not follow the schemas, one sentence each: missing, superfluous or
    untranslated texts; differing numbers and names of choices (which the editor does not translate)."""
    originals, texts = flat(english(schemas)), flat(translated)
    faults = [f"{place} is missing: {originals[place]}" for place in originals if place not in texts]
    faults += [f"{place} is of no use" for place in texts if place not in originals]
    choices = {
        f"{schema.node_id}.inputs.{entry.id}.tooltip": getattr(entry, "options", None) or []
        for schema in schemas
        for entry in schema.inputs
    }
    for place in originals.keys() & texts.keys():
        text, original = texts[place], originals[place]
        if SYNTAX.search(text + original):
            faults.append(f"{place} holds one of {{ }} @ |, which the editor would not show as it is")
        if not place.endswith("name") and not CHINESE.search(text):
            faults.append(f"{place} is not translated: {text}")
        if set(NUMBER.findall(text)) != set(NUMBER.findall(original)):
            faults.append(f"{place} has other numbers than: {original}")
        for choice in map(str, choices.get(place, [])):
            if f"{choice}:" in original and not re.search(re.escape(choice) + "[:：]", text):
                faults.append(f"{place} does not explain {choice!r}: {original}")
    return sorted(faults)


def main() -> int:
    in_process.import_host("cpu")
    in_process.import_pack()
    current = schemas()
    text = json.dumps(english(current), indent=2, ensure_ascii=False)
    (FOLDER / "en" / "nodeDefs.json").write_text(text + "\n", encoding="utf-8")
    faults = [f"{language}: {fault}" for language in OTHERS for fault in complaints(current, read(language))]
    print("\n".join(faults) or "All languages follow.")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
