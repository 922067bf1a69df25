"""The judge of the world with things in it: which thing or shape, its colour, the place, the look.

Trained on renders alone by `train_judge.py`, as the shapes' judge was.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from .architecture import WEIGHTS
from .judge import Judge
from .looks import GRAY, LOOKS
from .places import PLACES
from .scene import View, random_view, render
from .things import LEARNED
from .world import COLORS, PATTERNS, SHAPES

Answers = dict[str, str | tuple[str, ...]]


class SceneJudge(Judge):
    """Five answers about each picture. `thing`: with two things in the picture, the likelier one; `color`: the thing's,
    meaningless if the prompt names none; `place`: a place or a pattern; `background`: a pattern's colour."""

    CLASSES = {
        "thing": (*SHAPES, *LEARNED),
        "color": tuple(COLORS),
        "place": (*PATTERNS, *PLACES),
        "background": tuple(COLORS),
        "look": tuple(LOOKS),
    }
    WIDTHS = (32, 64, 128, 192)
    FILE = WEIGHTS / "scene_judge.safetensors"

    def see_things(self, images: torch.Tensor, count: int) -> list[set[str]]:
        """The `count` most likely things in each of the pictures `f 3 h w` in 0..1."""
        best = self.probabilities(images)["thing"].topk(count, dim=1).indices.tolist()
        return [{self.CLASSES["thing"][i] for i in row} for row in best]

    @staticmethod
    def examples(rng: random.Random, count: int) -> tuple[torch.Tensor, list[Answers]]:
        """Random renders `count 3 128 128` and the right answers, see `answers`."""
        views = [random_view(rng) for _ in range(count)]
        return render(views), answers(views)


def answers(views: Sequence[View]) -> list[Answers]:
    """The correct answer to each question that has one; for two things, `thing` is a pair."""
    result = []
    for view in views:
        kinds = tuple(actor.kind for actor in view.actors)
        found: Answers = {"thing": kinds[0] if len(kinds) == 1 else kinds, "place": view.place, "look": view.look}
        if view.background:
            found["background"] = view.background
        if len(kinds) == 1 and view.actors[0].color and view.look not in GRAY:
            found["color"] = view.actors[0].color
        result.append(found)
    return result


def right(judge: SceneJudge, images: torch.Tensor, truth: Sequence[Answers]) -> list[dict[str, bool]]:
    """Which of the right answers the judge gives about each picture `f 3 h w`; two things count if both are its
    likeliest two, under the name `pair`."""
    seen, two = judge.see(images), judge.see_things(images, 2)
    result = []
    for saw, pair, answer in zip(seen, two, truth):
        found = {name: saw[name] == word for name, word in answer.items() if isinstance(word, str)}
        if not isinstance(answer["thing"], str):
            found["pair"] = pair == set(answer["thing"])
        result.append(found)
    return result


def shares(found: Sequence[dict[str, bool]]) -> dict[str, float]:
    """The share of right answers per question, among the pictures it was asked about."""
    names = sorted({name for one in found for name in one})
    votes = {name: [one[name] for one in found if name in one] for name in names}
    return {name: sum(vote) / len(vote) for name, vote in votes.items()}
