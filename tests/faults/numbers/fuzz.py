"""Odd values for the inputs of the pack's nodes, by a seed: typed in, or from another node."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from random import Random

from ...server.graphs import Graph, node
from .good import is_link, only_for

NUMBERS = (
    0,
    1,
    -1,
    2,
    7,
    -7,
    0.5,
    1e-9,
    1e9,
    2**31,
    2**63 - 1,
    -(2**63),
    1e300,
    -1e300,
    math.nan,
    math.inf,
    -math.inf,
    999,
)
TEXTS = (
    "",
    " ",
    "\n\n",
    "a",
    "a" * 20_000,
    "red, " * 30_000,
    "猫" * 300,
    "a 猫: 2， b：3",
    "()",
    "((((",
    "(a:1e400)",
    "\\(",
    "<b>x</b>",
    "embedding:none",
    "red: 2",
    "red: 2, red: 3",
    "square",
    "con",
    "../x",
    "x" * 240,
    "a\u200b\u202eb",
    "\x07\x00",
    "%date%",
    "500, 500; 700",
    "-3",
    "1e3",
    "source\nedit\nmore",
    "{a|b}",
    "'; DROP TABLE",
    "🙂",
    "$x^2$",
)
OTHERS = (None, True, False, [], [1, 2, 3], {}, {"a": 1}, ["nobody", 0], ["mini", 99], ["mini", -1])
SOURCES = {int: "PrimitiveInt", float: "PrimitiveFloat", str: "PrimitiveStringMultiline"}


@dataclass(frozen=True)
class Try:
    """One input of one node, spoilt."""

    graph: Graph
    node: str
    name: str
    how: str

    def __str__(self) -> str:
        return f"{self.node}.{self.name}: {self.how[:80]}"


def spoilt(graph: Graph, count: int, seed: int) -> list[Try]:
    """`count` graphs, in each of which one input, sometimes two, of one of the pack's nodes is odd."""
    random, tries = Random(seed), []
    names = sorted(name for name, one in graph.items() if one["class_type"].startswith("EI2_") and one["inputs"])
    while len(tries) < count:
        name = random.choice(names)
        own = json.loads(json.dumps(only_for(graph, name)))
        if graph[name]["class_type"] == "EI2_SaveTune":
            del own["asks"]
        inputs = own[name]["inputs"]
        for _ in range(random.choice((1, 1, 1, 2))):
            key = random.choice(sorted(inputs))
            how = _spoil(own, name, key, random)
        tries.append(Try(own, name, key, how))
    return tries


def _spoil(graph: Graph, name: str, key: str, random: Random) -> str:
    inputs = graph[name]["inputs"]
    good, kind = inputs[key], random.random()
    if kind < 0.05:
        del inputs[key]
        return "missing"
    if kind < 0.15:
        links = [[other, slot] for other in sorted(graph) if other not in (name, "asks") for slot in (0, 1)]
        inputs[key] = random.choice(links or [["nobody", 0]])
        return f"from {inputs[key]}"
    if is_link(good) or kind < 0.25:
        inputs[key] = random.choice((*NUMBERS, *TEXTS, *OTHERS))
        return repr(inputs[key])[:80]
    odd = random.choice(TEXTS if isinstance(good, str) else NUMBERS)
    linked = random.random() < 0.6 and type(good) in (int, float, str)  # an input may be spoilt twice
    if not linked:
        inputs[key] = odd
        return repr(odd)[:80]
    source = SOURCES[type(good)]
    if source == "PrimitiveInt" and isinstance(odd, float):
        odd = int(max(-(2**63), min(2**63 - 1, odd))) if math.isfinite(odd) else -1
    graph["odd"] = node(source, value=float(odd) if source == "PrimitiveFloat" else odd)
    inputs[key] = ["odd", 0]
    return f"by link {odd!r}"[:80]
