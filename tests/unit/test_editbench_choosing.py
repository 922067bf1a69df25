"""Which settings EditBench's rule chooses."""

from __future__ import annotations

import pytest

from benchmarks.editbench import choosing
from benchmarks.editbench.methods import OURS

from .made_rows import row


def test_the_control_is_chosen_with_and_without_blending():
    results = [
        row("EI2, control 0.2 / 0.5", success=0.6),
        row("EI2, control 0.4 / 0.5", success=0.9),
        row("EI2, control 0.2 / 0.5, blend 0.3", success=0.80, psnr=20.0),
        row("EI2, control 0.4 / 0.5, blend 0.5", success=0.79, psnr=22.0),
        row("EI2, control 0.4 / 0.5, blend 0.5", clip="easy", success=0.0),
    ]
    blended = {"EI2 + control + blend": "EI2, control 0.4 / 0.5, blend 0.5"}
    assert choosing.chosen_control(results) == {"EI2 + control": "EI2, control 0.4 / 0.5", **blended}
    assert choosing.chosen_control(results[2:]) == blended and choosing.chosen_control([row()]) == {}


def test_the_best_budget_is_that_of_success_times_preservation():
    results = [
        row(budget="steps50", success=0.0, preservation=1.0, psnr=30.0),  # returns the source
        row(budget="steps100", success=0.6, preservation=0.5),  # 0.30
        row(budget="steps200", success=0.7, preservation=0.3, psnr=25.0),  # 0.21
    ]
    assert choosing.scores_of(results, "EI2")["steps100"] == (pytest.approx(0.3), 20.0)
    assert choosing.best_of(choosing.scores_of(results, "EI2")) == "steps100"


def test_psnr_decides_between_budgets_of_about_equal_success():
    assert choosing.best_of({"a": (0.80, 20.0), "b": (0.785, 21.0), "c": (0.77, 30.0)}) == "b"


def test_the_equal_budget_is_the_best_for_both_together():
    results = [
        row(method, budget, psnr=psnr)
        for method, budget, psnr in [
            (OURS, "steps50", 20.0),
            (OURS, "steps100", 23.0),
            (OURS, "steps200", 24.0),
            ("Tune-A-Video", "steps50", 22.0),
            ("Tune-A-Video", "steps100", 21.0),
            ("Tune-A-Video", "steps200", 16.0),
        ]
    ]
    assert choosing.chosen(results) == {OURS: "steps200", "Tune-A-Video": "steps50", "equal": "steps100"}


def test_budgets_are_chosen_on_the_same_edits():
    results = [
        row(budget="steps50", success=0.3),
        row(budget="steps100", success=0.1),
        row(budget="steps100", clip="easy", success=1.0),
    ]
    assert choosing.best_of(choosing.scores_of(results, "EI2")) == "steps50"
    with pytest.raises(ValueError, match="The budgets of EI2 have no edit in common"):
        choosing.scores_of([results[0], results[2]], "EI2")
