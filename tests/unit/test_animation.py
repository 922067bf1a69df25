"""The demo's animation: what a viewer finds in the file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from devtools.demo.animation import COLUMN, GAP, HOLD, LABEL, animate


def test_columns_frames_and_loop(tmp_path):
    black_to_white = torch.linspace(0, 1, 3).view(3, 1, 1, 1).expand(3, 3, 16, 24)
    animate({"rising": black_to_white, "falling": 1 - black_to_white}, tmp_path / "two.webp", fps=8)
    with Image.open(tmp_path / "two.webp") as file:
        assert (file.n_frames, file.info["loop"]) == (3, 0)
        assert file.size == (2 * COLUMN + GAP, LABEL + round(COLUMN * 16 / 24))
        levels, milliseconds = [], []
        for frame in range(3):
            file.seek(frame)
            pixels = np.asarray(file.convert("RGB"), dtype=float) / 255
            milliseconds.append(file.info["duration"])
            levels.append([pixels[LABEL + 5 :, column].mean() for column in (COLUMN // 2, -COLUMN // 2)])
            assert pixels[:LABEL, :COLUMN].min() < 0.5 < pixels[:LABEL, -COLUMN:].mean(), "the names stand above"
    assert milliseconds == [125, 125, HOLD]
    assert levels == pytest.approx(np.array([[0, 1], [0.5, 0.5], [1, 0]]), abs=0.02)


def test_clips_of_different_length_are_refused(tmp_path):
    with pytest.raises(ValueError):
        animate({"a": torch.zeros(3, 3, 8, 8), "b": torch.zeros(2, 3, 8, 8)}, tmp_path / "a.webp", fps=8)
    assert not list(tmp_path.iterdir())
