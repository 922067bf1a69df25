"""EditBench's results file: which rows belong together, and what it must hold."""

from __future__ import annotations

import json

import pytest

from benchmarks.editbench import rows

from .made_rows import METHODS, row


def test_methods_come_in_the_order_of_the_presets_then_as_they_are():
    results = [row("my own"), *(row(name) for name in reversed(METHODS)), row("another")]
    assert rows.methods_of(results) == [*METHODS, "my own", "another"]
    assert METHODS[1] == "Tune-A-Video" and "EI2" in METHODS


def test_pairs_are_of_the_same_clip_edit_and_seed():
    ours = [row(clip="a", psnr=1.0), row(clip="a", seed=1, psnr=2.0), row(clip="b", psnr=3.0), row(clip="c", psnr=4.0)]
    theirs = [row(clip="c", psnr=40.0), row(clip="a", psnr=10.0), row(clip="b", psnr=None), row(clip="d", psnr=9.0)]
    assert rows.pairs_of(ours, theirs, "psnr") == ([1.0, 4.0], [10.0, 40.0], ["a", "c"])


@pytest.mark.parametrize(
    "content, message",
    [
        ("{}", "does not hold EditBench rows"),
        ("[]", "does not hold EditBench rows"),
        ('[{"method": "EI2", "budget": "equal", "clip": "a"}]', "Row 0 of .* has no edit, seed"),
        (json.dumps([row(), row()]), "holds EI2 / equal / line-1 / color / 0 twice"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    file = tmp_path / "rows.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=message):
        rows.load(file)
