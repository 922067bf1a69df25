"""The rule that chooses settings by the development split's rows."""

from __future__ import annotations

from statistics import fmean

from .methods import BLEND, CONTROL, CONTROL_CHOICES, OURS, REFERENCE, SLOW
from .rows import budgets_of, case, known, select

TOLERANCE = 0.02  # of success times preservation


def criterion(rows: list[dict]) -> tuple[float, float]:
    """How good a setting is: the mean over edits of success times preservation,
    and the mean PSNR to the correct result, over edits that have one.

    It is a product because returning the source preserves everything, and drawing a new clip can fulfil any prompt:
    either alone must score zero.
    """
    return fmean(row["success"] * row["preservation"] for row in rows if known(row, "success")), fmean(
        row["psnr"] for row in rows if known(row, "psnr")
    )


def best_of(scores: dict[str, tuple[float, float]]) -> str:
    """The name with the highest PSNR among those whose success times preservation is within `TOLERANCE` of the best.
    Smaller differences are noise: one frame of a dozen edits is a point."""
    highest = max(product for product, _ in scores.values())
    near = {name: psnr for name, (product, psnr) in scores.items() if product >= highest - TOLERANCE}
    return max(near, key=near.get)


def on_shared_edits(options: dict[str, list[dict]]) -> dict[str, tuple[float, float]]:
    """The `criterion` of each option, over the edits that all were measured on; empty if there are none."""
    shared = set.intersection(*({case(row) for row in own} for own in options.values())) if options else set()
    over_shared = lambda own: criterion([row for row in own if case(row) in shared])
    return {name: over_shared(own) for name, own in options.items()} if shared else {}


def scores_of(rows: list[dict], method: str) -> dict[str, tuple[float, float]]:
    """A method's `criterion` by budget, `SLOW` apart, on the edits that it was measured on at every one of them.

    Raises ValueError for a method whose budgets share no edit.
    """
    own = select(rows, method=method)
    slow = {budget.name for budget in SLOW}  # run on fewer clips
    scores = on_shared_edits({name: select(own, budget=name) for name in budgets_of(own) if name not in slow})
    if not scores:
        raise ValueError(f"The budgets of {method} have no edit in common: run them on the same clips.")
    return scores


def chosen(rows: list[dict]) -> dict[str, str]:
    """The budgets to choose: the best of EI2 and of Tune-A-Video, and as `equal` the best for both, by the mean of
    their scores."""
    scores = {method: scores_of(rows, method) for method in (OURS, REFERENCE)}
    shared = [budget for budget in scores[OURS] if budget in scores[REFERENCE]]
    means = {budget: tuple(map(fmean, zip(*(own[budget] for own in scores.values())))) for budget in shared}
    return {**{method: best_of(own) for method, own in scores.items()}, "equal": best_of(means)}


def chosen_control(rows: list[dict]) -> dict[str, str]:
    """The values of EI2's control to choose, without and with LocalBlend; empty if none were tried."""
    choices = {}
    for name, blend in ((CONTROL, False), (BLEND, True)):
        names = [method.name for method in CONTROL_CHOICES if bool(method.control.blend) == blend]
        scores = on_shared_edits({method: own for method in names if (own := select(rows, method=method))})
        if scores:
            choices[name] = best_of(scores)
    return choices
