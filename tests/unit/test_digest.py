"""Names by content: equal for equal content, different for any difference, refused for what cannot be told."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from ei2.digest import Unhashable, digest

VALUE = {"b": [1, 2.5, None, "text"], "a": (torch.arange(6).reshape(2, 3).float(), True)}


def test_equal_content_gives_equal_names():
    transposed = VALUE["a"][0].T.contiguous().T  # the same numbers, lying otherwise in memory
    again = {"a": [transposed, True], "b": (1, 2.5, None, "text")}
    assert digest(VALUE) == digest(again)
    assert digest(torch.arange(4)[::2]) == digest(torch.tensor([0, 2]))


def test_the_name_is_the_same_in_another_process():
    code = "from ei2.digest import digest; print(digest({'b': [1, 2.5, None, 'text'], 'a': (b'x', True)}))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == digest({"b": [1, 2.5, None, "text"], "a": (b"x", True)})


DIFFERENT = [
    1,
    1.0,
    True,
    "1",
    None,
    b"1",
    [1],
    [[1]],
    [1, 1],
    {"1": 1},
    {1: 1},
    {1: 2},
    torch.tensor(1),
    torch.tensor([1]),
    torch.tensor([[1]]),
    torch.tensor([1.0]),
    torch.tensor([1.0]).half(),
    torch.tensor([1.0]).bfloat16(),
    torch.zeros(0),
    [],
    {},
    [[], 1],
    ["a", "b"],
    ["ab"],
    torch.float16,
]


@pytest.mark.parametrize("other", DIFFERENT, ids=str)
def test_different_content_gives_different_names(other):
    assert [digest(content) for content in DIFFERENT].count(digest(other)) == 1


def test_a_single_changed_value_shows():
    tensor = torch.randn(3, 5)
    changed = tensor.clone()
    changed[2, 4] = torch.nextafter(changed[2, 4], torch.tensor(9.0))
    assert digest(tensor) != digest(changed)


def test_foreign_objects_are_refused_or_translated():
    with pytest.raises(Unhashable, match="Generator"):
        digest([1, torch.Generator()])
    assert digest([1, torch.Generator()], foreign=lambda value: type(value).__name__) == digest([1, "Generator"])
