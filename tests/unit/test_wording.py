"""Numbers in texts for the user."""

from __future__ import annotations

from ei2.wording import file_size, plural, was


def test_file_sizes():
    sizes = {0: "0 kB", 1: "1 kB", 40_000: "40 kB", 99_999: "100 kB", 100_000: "0.1 MB", 29_740_000: "29.7 MB"}
    assert {count: file_size(count) for count in sizes} == sizes


def test_one_and_many():
    texts = [f"{plural(count, 'frame')} {was(count)} lost" for count in (0, 1, 2)]
    assert texts == ["0 frames were lost", "1 frame was lost", "2 frames were lost"]
