"""The jobs of an EditBench run. A job tunes on a clip once and edits it with all cases that can use the result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from . import methods
from .clips import Clip, clips_of, find_clip, motions_first
from .methods import METHODS, Budget

INPUTS = ("source", "target", "settings")  # a row is out of date if its inputs differ from its job's


@dataclass(frozen=True)
class Case:
    """One method at one budget."""

    method: str
    budget: Budget


@dataclass(frozen=True)
class Job:
    """`cases`: those that share one tuning, by `methods.learning`."""

    split: str
    clip: str
    seed: int
    cases: tuple[Case, ...]

    def __str__(self) -> str:
        more = len(self.cases) - 1
        return f"{self.clip}, seed {self.seed}, {self.methods[0]}" + (f" and {more} cases more" if more else "")

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(case.method for case in self.cases))

    def inputs(self) -> dict[tuple, dict]:
        """The inputs (`INPUTS`) of the rows it makes, by `rows.identity`."""
        return {key: value for case in self.cases for key, value in self.inputs_of(case).items()}

    def inputs_of(self, case: Case) -> dict[tuple, dict]:
        """The same for one case."""
        clip, settings = find_clip(self.split, self.clip), case.budget.settings(METHODS[case.method])
        identity = lambda edit: (case.method, case.budget.name, self.clip, edit.kind, self.seed)
        inputs = lambda edit: dict(zip(INPUTS, (clip.source_prompt, edit.target_prompt, settings)))
        return {identity(edit): inputs(edit) for edit in clip.edits}

    def only(self, names: list[str]) -> Job:
        """The cases of some methods."""
        return replace(self, cases=tuple(case for case in self.cases if case.method in names))

    def missing(self, done: Mapping[tuple, dict]) -> Job:
        """The cases that lack a row made from the same inputs. `done`: the inputs of existing rows by identity."""
        lacks = lambda case: any(done.get(key) != value for key, value in self.inputs_of(case).items())
        return replace(self, cases=tuple(case for case in self.cases if lacks(case)))


def plan(split: str) -> list[Job]:
    """The jobs of `test`, `dev` or `quick`. The most informative ones come first, so a run stopped early leaves
    complete comparisons. Raises ValueError for another split."""
    reference, ours, per_frame = methods.REFERENCE, methods.OURS, methods.PER_FRAME
    equal, both = (methods.EQUAL,), (methods.EQUAL, methods.GUIDED)  # the second suits Tune-A-Video better
    if split == "quick":
        return _jobs(split, dict.fromkeys((reference, ours, methods.BLEND, "Vid2Vid-zero"), (methods.QUICK,)), seed=0)
    if split == "dev":
        compared = dict.fromkeys((ours, reference), both)
        compared |= dict.fromkeys((methods.KEY_FRAME, methods.DRAWN), equal)
        options = {name: equal for name in METHODS if name not in (*compared, per_frame)}
        options |= dict.fromkeys((methods.CONTROL, methods.BLEND), both)
        options |= dict.fromkeys((ours, reference), methods.SEARCH)
        slow = dict.fromkeys((ours, reference), methods.SLOW)
        clips = motions_first(clips_of(split))
        third, sixth = clips[: len(clips) // 3], clips[: len(clips) // 6]
        order = [(compared, clips), ({per_frame: equal}, clips), (slow, sixth), (options, third)]
        return [job for budgets, some in order for job in _jobs(split, budgets, 0, some)]
    if split != "test":
        raise ValueError(f"There is no split {split!r}: use dev, test or quick.")
    main = dict.fromkeys((ours, methods.KEY_FRAME, methods.DRAWN, methods.CONTROL, methods.BLEND, reference), equal)
    main |= dict.fromkeys((ours, reference), both)
    # Tune-A-Video gains from more steps, and from a lower rate: one seed, because they tune anew
    suited = dict.fromkeys((ours, reference), (*both, methods.LONG, methods.LOW_RATE, methods.LOW_RATE_GUIDED))
    # with guidance in half of the steps, Vid2Vid-zero's null-text embeddings would never guide the edit
    budgets_of = lambda method: both if method.null_text else equal
    others = {method.name: budgets_of(method) for method in methods.COMPARED if method.name not in main}
    random = {name: equal for name in others if METHODS[name].tuned}  # a seed matters to these
    order = [(main | suited, 0), (others, 0), (main, 1), (random, 1)]
    return [job for budgets, seed in order for job in _jobs(split, budgets, seed)]


def _jobs(
    split: str, budgets: dict[str, tuple[Budget, ...]], seed: int, clips: Iterable[Clip] | None = None
) -> list[Job]:
    """Every clip, or some, with every method at its budgets; cases that share a tuning form one job."""
    shared: dict[tuple, list[Case]] = {}
    for method, own in budgets.items():
        for budget in dict.fromkeys(own):
            shared.setdefault(methods.learning(METHODS[method], budget), []).append(Case(method, budget))
    clips = motions_first(clips_of(split)) if clips is None else clips
    return [Job(split, clip.name, seed, tuple(cases)) for clip in clips for cases in shared.values()]
