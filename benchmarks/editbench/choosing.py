"""The rule by which settings are chosen from the development split's rows."""

from __future__ import annotations

from statistics import fmean

from benchmarks.editbench.methods import BLEND, CONTROL, CONTROL_CHOICES, JOINT, REFERENCE
from benchmarks.editbench.rows import budgets_of, case, select

TOLERANCE = 0.02  # of success times preservation


def criterion(rows: list[dict]) -> tuple[float, float]:
    """How good a setting is, from its rows on the development split: the mean over edits of success times preservation,
    and the mean PSNR to the right result.

    A product, because returning the source keeps everything and drawing a new clip can fulfil any prompt: each alone
    must score zero.
    """
    return fmean(row["success"] * row["preservation"] for row in rows), fmean(row["psnr"] for row in rows)


def best_of(scores: dict[str, tuple[float, float]]) -> str:
    """The name with the highest PSNR among those whose success times preservation is within `TOLERANCE` of the best:
    closer than that they cannot be told apart, since one frame of a dozen edits is a point."""
    highest = max(first for first, _ in scores.values())
    near = {name: psnr for name, (first, psnr) in scores.items() if first >= highest - TOLERANCE}
    return max(near, key=near.get)


def scores_of(rows: list[dict], method: str) -> dict[str, tuple[float, float]]:
    """A method's `criterion` by budget, on the edits that it was measured on at every budget.

    Raises ValueError for a method whose budgets share no edit.
    """
    own = select(rows, method=method)
    by_budget = {budget: select(own, budget=budget) for budget in budgets_of(own)}
    shared = set.intersection(*({case(row) for row in found} for found in by_budget.values()))
    if not shared:
        raise ValueError(f"The budgets of {method} have no edit in common: run them on the same clips.")
    return {b: criterion([row for row in found if case(row) in shared]) for b, found in by_budget.items()}


def chosen(rows: list[dict], methods: tuple[str, ...] = (JOINT, REFERENCE)) -> dict[str, str]:
    """The budgets to choose, by `best_of`, from the development split's rows: each method's best, and under `equal`
    the best for all of them together, by the mean of their scores."""
    scores = {method: scores_of(rows, method) for method in methods}
    shared = [budget for budget in scores[methods[0]] if all(budget in found for found in scores.values())]
    means = {b: tuple(fmean(found[b][i] for found in scores.values()) for i in (0, 1)) for b in shared}
    return {**{method: best_of(found) for method, found in scores.items()}, "equal": best_of(means)}


def chosen_control(rows: list[dict]) -> dict[str, str]:
    """The values of EI2's control to choose, by `best_of`, without and with LocalBlend, from the development split's
    rows; empty where none were tried. On the edits that all were measured on."""
    found = {}
    for name, blend in ((CONTROL, False), (BLEND, True)):
        tried = {m.name: select(rows, method=m.name) for m in CONTROL_CHOICES if bool(m.control.blend) == blend}
        tried = {method: own for method, own in tried.items() if own}
        shared = set.intersection(*({case(row) for row in own} for own in tried.values())) if tried else set()
        if shared:
            scores = {m: criterion([row for row in own if case(row) in shared]) for m, own in tried.items()}
            found[name] = best_of(scores)
    return found
