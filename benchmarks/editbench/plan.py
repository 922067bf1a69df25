"""Which jobs a run consists of, the most telling first: a run that is stopped early leaves whole comparisons."""

from __future__ import annotations

from collections.abc import Iterable

from .clips import clips_of
from .job import Job
from .methods import ABLATIONS, BEST, EQUAL, METHODS, OURS, PRESETS, QUICK, REFERENCE, SEARCH, SHORT, Budget


def plan(split: str) -> list[Job]:
    """The jobs of `test`, `dev` or `quick`. Raises ValueError for another split."""
    if split == "quick":
        return _jobs(split, {REFERENCE: (QUICK,), OURS: (QUICK,)}, seed=0)
    if split == "dev":
        search = {name: (EQUAL, *SEARCH) for name in (OURS, REFERENCE)}
        options = {name: (SHORT,) for name in METHODS if name not in search}
        return _jobs(split, search, seed=0) + _jobs(split, options, seed=0)
    if split != "test":
        raise ValueError(f"There is no split {split!r}: use dev, test or quick.")
    main = {name: (EQUAL, BEST[name]) for name in (OURS, REFERENCE)}
    others = {method.name: (EQUAL,) for method in PRESETS if method.name not in main}
    ablations = {method.name: (EQUAL,) for method in ABLATIONS}
    order = [(main, 0), (others, 0), (main, 1), (others, 1), (ablations, 0), (ablations, 1)]
    jobs = [job for methods, seed in order for job in _jobs(split, methods, seed)]
    return [job for job in jobs if METHODS[job.method].tuned or job.seed == 0]  # else there is no chance in it


def _jobs(split: str, budgets: dict[str, tuple[Budget, ...]], seed: int) -> list[Job]:
    """Every clip by every method at its budgets. One job per learning rate, since a tuning of fewer steps is a stop on
    the way of a longer one."""
    found = sorted(clips_of(split), key=lambda clip: clip.name.rsplit("-")[-1])  # all motions' first clips first
    return [
        Job(split, method, clip.name, seed, same)
        for clip in found
        for method, wanted in budgets.items()
        for same in _by_learning_rate(wanted)
    ]


def _by_learning_rate(budgets: Iterable[Budget]) -> list[tuple[Budget, ...]]:
    budgets = tuple(dict.fromkeys(budgets))
    rates = dict.fromkeys(budget.learning_rate for budget in budgets)
    return [tuple(budget for budget in budgets if budget.learning_rate == rate) for rate in rates]
