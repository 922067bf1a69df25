"""What newer hosts' node API offers is used there, and no older host is asked for it."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from comfy_api.latest import io

from devtools.in_process import pack

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def schemas() -> dict:
    nodes = asyncio.run(pack("nodes").EI2Extension().get_node_list())
    return {node.GET_SCHEMA().node_id: node.GET_SCHEMA() for node in nodes}


@pytest.fixture(scope="module")
def known() -> set[str]:
    return {field.name for field in dataclasses.fields(io.Schema)}


def test_only_what_the_host_knows():
    newer_api = pack("host.newer")
    assert newer_api.offered(description="x", no_such_field=1) == {"description": "x"}


def test_inputs_take_what_is_offered():
    newer_api = pack("host.newer")
    for kind in newer_api.INPUTS:
        options = {"options": ["a"]} if kind is io.Combo.Input else {}
        made = kind("name", **options, **newer_api.ADVANCED)
        assert made.as_dict().get("advanced") == newer_api.ADVANCED.get("advanced")


def test_every_node_has_search_words_where_the_host_knows_them(schemas, known):
    if "search_aliases" not in known:
        assert not any(hasattr(schema, "search_aliases") for schema in schemas.values())
        return
    for name, schema in schemas.items():
        words = schema.search_aliases
        assert words and len(set(words)) == len(words), name
        assert all(word == word.strip().lower() for word in words), name


def test_what_is_shown_comes_back_where_the_host_can(schemas, known):
    """Nodes that show something and are no outputs."""
    shown = {"EI2_OneShotTune", "EI2_Invert", "EI2_Recipe", "EI2_LoadTune", "EI2_ApplyTune"}
    marked = {name for name, schema in schemas.items() if getattr(schema, "has_intermediate_output", False)}
    assert marked == (shown if "has_intermediate_output" in known else set())
