"""Which jobs a run consists of, the most telling first: a run that is stopped early leaves whole comparisons."""

from __future__ import annotations

from .clips import clips_of, motions_first
from .job import Case, Job
from .methods import (
    ABLATIONS,
    BEST,
    BLEND,
    COMPARED,
    CONTROL,
    CONTROL_CHOICES,
    EQUAL,
    JOINT,
    METHODS,
    OURS,
    QUICK,
    REFERENCE,
    SEARCH,
    SHORT,
    Budget,
    learning,
)


def plan(split: str) -> list[Job]:
    """The jobs of `test`, `dev` or `quick`. Raises ValueError for another split."""
    if split == "quick":
        return _jobs(split, {name: (QUICK,) for name in (REFERENCE, OURS, BLEND, "Vid2Vid-zero")}, seed=0)
    if split == "dev":
        search = {name: (EQUAL, *SEARCH) for name in (JOINT, REFERENCE)} | {OURS: (EQUAL, SHORT)}
        options = {name: method for name, method in METHODS.items() if name not in search}
        shares = {CONTROL, BLEND, *(method.name for method in CONTROL_CHOICES)}
        first = search | {name: (SHORT,) for name in options if name in shares}
        rest = {name: (SHORT,) for name in options if name not in shares}
        return _jobs(split, first, seed=0) + _jobs(split, rest, seed=0)
    if split != "test":
        raise ValueError(f"There is no split {split!r}: use dev, test or quick.")
    main = {name: (EQUAL, *((BEST[name],) if name in BEST else ())) for name in (OURS, CONTROL, BLEND, REFERENCE)}
    others = {method.name: (EQUAL,) for method in COMPARED if method.name not in main}
    ablations = {method.name: (EQUAL,) for method in ABLATIONS}
    by_chance = {name: budgets for name, budgets in others.items() if METHODS[name].tuned}
    order = [(main, 0), (others, 0), (main, 1), (by_chance, 1), (ablations, 0), (ablations, 1)]
    return [job for methods, seed in order for job in _jobs(split, methods, seed)]


def _jobs(split: str, budgets: dict[str, tuple[Budget, ...]], seed: int) -> list[Job]:
    """Every clip by every method at its budgets; cases that share what is learned are one job."""
    shared: dict[tuple, list[Case]] = {}
    for method, wanted in budgets.items():
        for budget in dict.fromkeys(wanted):
            shared.setdefault(learning(METHODS[method], budget), []).append(Case(method, budget))
    found = motions_first(clips_of(split))
    return [Job(split, clip.name, seed, tuple(cases)) for clip in found for cases in shared.values()]
