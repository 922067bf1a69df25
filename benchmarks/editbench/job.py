"""What one job of EditBench is: a clip is learned once, and every case that can use what was learned is edited."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from .clips import Clip, clips_of
from .methods import METHODS, Budget

GIVEN = ("source", "target", "settings")  # a row with others than its job's is out of date


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

    def given(self) -> dict[tuple, dict]:
        """What the rows it makes are made from (`GIVEN`), by what tells them apart (`rows.IDENTITY`)."""
        return {key: value for case in self.cases for key, value in self.given_of(case).items()}

    def given_of(self, case: Case) -> dict[tuple, dict]:
        clip = find_clip(self.split, self.clip)
        return {
            (case.method, case.budget.name, self.clip, edit.kind, self.seed): {
                "source": clip.source_prompt,
                "target": edit.target_prompt,
                "settings": case.budget.settings(METHODS[case.method]),
            }
            for edit in clip.edits
        }

    def only(self, methods: list[str]) -> Job:
        """The cases of some methods."""
        return replace(self, cases=tuple(case for case in self.cases if case.method in methods))

    def missing(self, done: Mapping[tuple, dict]) -> Job:
        """The cases whose rows are not all `done`, made from the same (`GIVEN` by `rows.IDENTITY`)."""
        lacks = lambda case: any(done.get(key) != value for key, value in self.given_of(case).items())
        return replace(self, cases=tuple(case for case in self.cases if lacks(case)))


def find_clip(split: str, name: str) -> Clip:
    return next(clip for clip in clips_of(split) if clip.name == name)
