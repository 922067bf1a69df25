"""Files as nobody's program writes them, made from good ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import torch
from safetensors import safe_open
from safetensors.torch import save_file

MARKUP = "<img src=x onerror=alert(1)>"
WRONG = [
    None,
    True,
    -1,
    0,
    10**4000,
    0.5,
    "",
    "x",
    MARKUP,
    "\udc82\u202e\x00\x1b[2J",
    [],
    [[]],
    {},
    {"x": {}},
    ["x"] * 3,
    float("nan"),
    float("inf"),
    [float("nan")],
    [10**400],
    list(range(5)),
]
Change = Callable[[dict, dict], None]  # of the record and the tensors, in place


def rewrite(path: Path, kind: str, change: Change = lambda record, tensors: None, **metadata: str) -> None:
    """The file with another record, other tensors, or other metadata."""
    with safe_open(path, "pt") as file:
        tensors, texts = {name: file.get_tensor(name).clone() for name in file.keys()}, file.metadata()
    record = json.loads(texts[kind])
    change(record, tensors)
    save_file(tensors, path, {**texts, kind: json.dumps(record), **metadata})


def records(record: dict) -> Iterator[tuple[str, Change]]:
    """Every value of a record, and every value of the dictionaries in it, missing or replaced by each of `WRONG`; and
    something unknown in each dictionary."""
    for place in [(), *((key,) for key, one in record.items() if isinstance(one, dict))]:
        known = record
        for key in place:
            known = known[key]

        def at(record: dict, place=place) -> dict:
            for key in place:
                record = record[key]
            return record

        yield f"{place} foreign", lambda record, _, at=at: at(record).update(foreign=1)
        for key in known:
            yield f"{place} without {key}", lambda record, _, at=at, key=key: at(record).pop(key)
            for wrong in WRONG:
                text = ascii(wrong)[:20]
                yield f"{place} {key}: {text}", lambda record, _, at=at, key=key, x=wrong: at(record).update({key: x})


def tensors(names: list[str]) -> Iterator[tuple[str, Change]]:
    """Each tensor missing, renamed, of another shape or type, and without numbers; and foreign ones beside them."""
    yield "foreign", lambda _, tensors: tensors.update(foreign=torch.zeros(2))
    yield "many", lambda _, tensors: tensors.update({f"foreign.{i}": torch.zeros(1) for i in range(3000)})
    yield "none", lambda _, tensors: tensors.clear()
    changes = {
        "renamed": lambda one: None,
        "flat": lambda one: one.reshape(-1)[: one.numel() // 2].clone(),
        "longer": lambda one: torch.cat([one.reshape(-1)] * 2),
        "more dimensions": lambda one: one.reshape(1, 1, 1, 1, *one.shape),
        "empty": lambda one: one.reshape(-1)[:0].clone(),
        "whole numbers": lambda one: one.long(),
        "NaN": lambda one: one.float() * float("nan"),
        "infinite": lambda one: one.float() + float("inf"),
    }
    for name in names:
        yield f"without {name}", lambda _, tensors, name=name: tensors.pop(name)
        for what, change in changes.items():

            def put(_, tensors, name=name, change=change):
                one = tensors.pop(name)
                changed = change(one)
                tensors.update({f"{name}x": one} if changed is None else {name: changed})

            yield f"{name} {what}", put


def texts(kind: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Metadata that holds no record."""
    deep = "[" * 200_000, '{"a":' * 200_000
    for text in ("", "x", "null", "[]", "1", '"x"', "{}", *deep, "9" * 5000, '{"format": 1}'):
        yield f"record {text[:12]}", {kind: text}


def bytes_of(path: Path, rounds: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """The file cut off anywhere, and with bytes changed anywhere in its head, where its size and names are."""
    content, random = path.read_bytes(), Random(seed)
    head = 8 + int.from_bytes(content[:8], "little")
    for i in range(rounds):
        cut = random.randrange(len(content)) if i % 2 else random.randrange(head + 1)
        yield f"cut at {cut}", content[:cut]
        changed = bytearray(content)
        for _ in range(random.choice((1, 1, 3, 10))):
            changed[random.randrange(head)] = random.randrange(256)
        yield f"bytes changed, {i}", bytes(changed)
    yield "empty", b""
    yield "a head as long as the world", (2**63).to_bytes(8, "little") + content[8:]
    yield "text", b"<html>not found</html>" * 100
