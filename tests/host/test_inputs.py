"""Values that come from other nodes, which the host does not check: every widget of every node by its own schema."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytestmark = pytest.mark.host

ODD_NUMBERS = (math.nan, math.inf, -math.inf, -1e300, 1e300, 10**400, 10**5000, "seven", None, [1], True, 1 + 2j)


@pytest.fixture(scope="module")
def nodes(pack):
    return {node.__name__: node for node in pack("nodes").NODES}


@pytest.fixture(scope="module")
def inputs(pack):
    return pack("host.guard")


def widgets(nodes, kind: str):
    from comfy_api.latest import io

    for node in nodes.values():
        for one in node.define_schema().inputs:
            if isinstance(one, getattr(io, kind).Input):
                yield node, one


def refused(node, name: str, value) -> str:
    """What is said to one odd value among good ones; the others are not even looked at before."""
    given = {one.id: getattr(one, "default", None) for one in node.define_schema().inputs}
    for one in node.define_schema().inputs:
        if getattr(one, "options", None) and given[one.id] is None:
            given[one.id] = one.options[0]
        if type(one).__qualname__ == "String.Input" and given[one.id] is None:
            given[one.id] = ""
    with pytest.raises(ValueError) as error:
        node.execute(**{**given, name: value})
    return str(error.value)


def is_sentence(text: str, name: str) -> bool:
    return text.startswith(f"{name} is ") and text.endswith(".") and len(text) < 250 and "\n" not in text


@pytest.mark.parametrize("kind", ["Int", "Float"])
def test_numbers_outside_their_range(kind, nodes):
    seen = 0
    for node, one in widgets(nodes, kind):
        beyond = (one.min - 1, one.max + 1, *((one.min + 0.5,) if kind == "Int" else ()))
        for value in (*ODD_NUMBERS, *beyond):
            if value is None and one.optional:  # not given
                continue
            text = refused(node, one.id, value)
            assert is_sentence(text, one.id), text
            low, high = (one.min, one.max) if kind == "Int" else (f"{one.min:g}", f"{one.max:g}")
            assert f"from {low} to {high}" in text, text
            seen += 1
    assert seen > 100


def test_choices_that_there_are_not(nodes):
    own = {"video", "tune_name", "preset", "recipe", "model_kind", "resume_from"}  # whose nodes say it themselves
    for node, one in widgets(nodes, "Combo"):
        for value in ("zoom", None, 3, math.nan, "x" * 10**6):
            if value is None and one.optional:
                continue
            if one.id not in own:
                text = refused(node, one.id, value)
                assert is_sentence(text, one.id) and f"choose one of {', '.join(one.options)}" in text
    assert "There is no preset 'EI3': choose one of EI2," in refused(nodes["InflateUNet"], "preset", "EI3")
    assert "There is no recipe 'x': choose one of" in refused(nodes["RecipeNode"], "recipe", "x")


def test_texts_without_end_and_other_things(nodes, inputs):
    seen = 0
    for node, one in widgets(nodes, "String"):
        text = refused(node, one.id, "x, " * 400_000)
        assert is_sentence(text, one.id) and "of 1200000 characters, 'x, x, x, " in text and "at most 10000" in text
        for value in (7, math.nan, ["a"], b"a"):
            text = refused(node, one.id, value)
            assert is_sentence(text, one.id) and "it must be text" in text
            seen += 1
    assert seen > 20


def test_switches(nodes):
    for node, one in widgets(nodes, "Boolean"):
        for value in ("yes", math.nan, [True]):
            assert "it must be true or false" in refused(node, one.id, value)


def test_values_in_place_of_links(nodes, inputs):
    """The host lets numbers and texts through where a link belongs."""
    seen = set()
    for node in nodes.values():
        for one in node.define_schema().inputs:
            kind = one.get_io_type()
            if kind not in inputs.CONNECTED:
                continue
            seen.add(kind)
            nothing = () if kind == "CLIP" else (None,)
            for value in (7, "", "x" * 10**6, True, {"a": 1}, [1, 2], {"samples": 3}, *nothing):
                with pytest.raises(ValueError, match=f"^{one.id} is .*: connect an output of type {kind}.$"):
                    inputs.check_links([one], {one.id: value})
    assert seen == inputs.CONNECTED.keys()


def test_numbers_of_other_kinds_become_the_schemas(inputs):
    from comfy_api.latest import io

    schema = [io.Int.Input("n", min=0, max=9), io.Float.Input("x", min=0.0, max=9.0), io.Boolean.Input("b")]
    values = inputs.checked_values(schema, {"n": np.float64(3.0), "x": np.int64(4), "b": 1})
    assert values == {"n": 3, "x": 4.0, "b": True}
    assert [type(value) for value in values.values()] == [int, float, bool]


def test_what_is_optional_and_none_is_not_given(inputs):
    from comfy_api.latest import io

    given = {"n": None}
    assert inputs.checked_values([io.Int.Input("n", min=0, max=9, optional=True)], given) == {} and not given


def test_the_host_still_finds_the_nodes_methods(nodes):
    import inspect

    for node in nodes.values():
        assert len(inspect.signature(node.execute).parameters) >= bool(node.define_schema().inputs)
        assert node.FUNCTION == "EXECUTE_NORMALIZED"


def test_memory_that_runs_out_in_any_node_is_explained(pack, inputs):
    import torch
    from comfy_api.latest import io

    class Greedy(io.ComfyNode):
        @classmethod
        def define_schema(cls):
            return io.Schema("Greedy", display_name="The Greedy", inputs=[])

        @classmethod
        def execute(cls):
            return io.NodeOutput(torch.empty(2**60))

    inputs.guarded(Greedy)
    with pytest.raises(pack("host.memory").OutOfMemory, match="^There was not enough memory for The Greedy: give"):
        Greedy.execute()
