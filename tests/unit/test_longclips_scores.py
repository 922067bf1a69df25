"""What the benchmark of long clips measures, on clips made so that the answer is known."""

from __future__ import annotations

import pytest
import torch

from benchmarks.longclips.run import COLUMNS, LAP, ONCE, SUBJECTS, long_clip, table
from benchmarks.longclips.scores import LiveTensors, borders, color_errors, drift, seam_ratio, wander

WINDOWS = [[0, 1, 2, 3], [3, 4, 5, 6], [5, 6, 7, 8]]


def test_borders_are_where_a_window_begins_or_ends():
    assert borders(WINDOWS, 9).tolist() == [False, False, True, True, True, False, True, False]


def test_seams_are_told_from_flicker_inside():
    at_border = borders(WINDOWS, 9)
    steps = torch.where(at_border, 0.06, 0.02)
    error = torch.cat([torch.zeros(1), steps.cumsum(0)]).view(9, 1, 1, 1).expand(9, 3, 2, 2)
    truth = torch.rand(9, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    assert seam_ratio(truth + error, truth, at_border) == pytest.approx(3.0, rel=1e-5)
    assert seam_ratio(truth + steps.mean() * torch.arange(9).view(9, 1, 1, 1), truth, at_border) == pytest.approx(1.0)


def test_colours_are_compared_where_the_weights_are():
    truth, weights = torch.zeros(2, 3, 2, 2), torch.zeros(2, 1, 2, 2)
    weights[..., 0] = 1.0
    edited = truth.clone()
    edited[1, 0, :, 0], edited[:, 2, :, 1] = 0.5, 0.9
    expected = torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(color_errors(edited, truth, weights), expected)


def test_drift_and_wander():
    errors = torch.zeros(6, 3, dtype=torch.float64)
    assert drift(errors, [0, 1], [4, 5]) == wander(errors) == 0.0
    errors[4:, 0], errors[4:, 1] = 0.3, 0.4
    assert drift(errors, [0, 1], [4, 5]) == pytest.approx(0.5)
    assert wander(errors) == pytest.approx(0.5 * (1 / 3 * 2 / 3) ** 0.5)
    errors[:] = torch.tensor([0.3, 0.2, 0.1])  # wrong, but everywhere the same
    assert drift(errors, [0], [5]) == pytest.approx(0.0, abs=1e-12) and wander(errors) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("name", SUBJECTS)
def test_longer_clips_go_on_where_shorter_ones_end(name):
    short, long = long_clip(name, 10), long_clip(name, 2 * LAP)
    assert long.views[:10] == short.views and len(set(long.views)) == 2 * LAP
    for edit in long.edits:
        assert edit.target_prompt != long.source_prompt
        pairs = [(a.actors[0], b.actors[0]) for a, b in zip(long.views, edit.views)]
        assert all((a.x, a.y, a.angle) == (b.x, b.y, b.angle) for a, b in pairs)


def test_live_tensors_are_counted_while_they_live():
    with LiveTensors() as live:
        x = torch.zeros(1000)
        for _ in range(3):
            y = x + 1
            y = y.view(10, 100) * 2
            del y
        assert (live.now, live.peak) == (4000, 12000)
        x[:10] += 1
        assert live.now == 4000
        del x
        assert live.now == 0


def test_a_measure_that_an_edit_does_not_have_is_left_out_of_the_means():
    rows = [{"clip": clip, "mode": ONCE, **dict.fromkeys(COLUMNS, 0.5)} for clip in ("a", "b")]
    rows[0]["agreement"] = None
    text = table(rows, [], [])
    assert "nan" not in text and f"| {ONCE} |" + " 0.5 |" * len(COLUMNS) in text
