"""What texts for the user are made of."""

from __future__ import annotations

from ei2.user_text import file_size


def test_file_sizes():
    sizes = {0: "0 kB", 1: "1 kB", 40_000: "40 kB", 99_999: "100 kB", 100_000: "0.1 MB", 29_740_000: "29.7 MB"}
    assert {count: file_size(count) for count in sizes} == sizes
