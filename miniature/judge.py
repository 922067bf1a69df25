"""The judge: a small classifier that says what a picture of the miniature's world shows: which thing or shape, its
colour, the place, the look.

It was trained on renders alone (`train_judge.py`), never on pictures of the miniature model, so it can tell how often
the model draws what its prompt says, and whether an edit changed what it should.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from .architecture import PIXELS, WEIGHTS
from .looks import GRAY, LOOKS
from .places import PLACES
from .scene import View, random_view, render
from .things import LEARNED
from .world import COLORS, PATTERNS, SHAPES

Answers = dict[str, str | tuple[str, ...]]
CLASSES: dict[str, tuple[str, ...]] = {
    "thing": (*SHAPES, *LEARNED),
    "color": tuple(COLORS),
    "place": (*PATTERNS, *PLACES),
    "background": tuple(COLORS),
    "look": tuple(LOOKS),
}
FILE = WEIGHTS / "judge.safetensors"
WIDTHS = (32, 64, 128, 192)  # channels at 32, 16, 8 and 4 pixels


class ResidualBlock(torch.nn.Module):
    """Two 3 x 3 convolutions around a shortcut, `b i h w` -> `b o h w`."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.norm1 = torch.nn.GroupNorm(8, channels_in)
        self.conv1 = torch.nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = torch.nn.GroupNorm(8, channels_out)
        self.conv2 = torch.nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.shortcut = torch.nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv1(F.relu(self.norm1(x)))
        h = self.conv2(F.relu(self.norm2(h)))
        return self.shortcut(x) + h


class Judge(torch.nn.Module):
    """Five answers about each picture. `thing`: with two things in the picture, the likelier one; `color`: the thing's,
    meaningless for a thing in its own colours; `place`: a place or a pattern; `background`: a pattern's colour."""

    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, WIDTHS[0], 4, stride=2, padding=1)
        pairs = zip((WIDTHS[0], *WIDTHS), WIDTHS)
        self.blocks = torch.nn.ModuleList([ResidualBlock(i, o) for i, o in pairs])
        self.norm = torch.nn.GroupNorm(8, WIDTHS[-1])
        self.heads = torch.nn.ModuleDict(
            {name: torch.nn.Linear(2 * WIDTHS[-1], len(classes)) for name, classes in CLASSES.items()}
        )

    @classmethod
    def load(cls, path: Path = FILE) -> Judge:
        """The trained judge in float32 on the CPU. Raises FileNotFoundError if its weights are missing."""
        if not Path(path).exists():
            raise FileNotFoundError(
                f"The judge's weights are missing at {path}: run `python -m miniature.train_judge`."
            )
        judge = cls()
        judge.load_state_dict({key: value.float() for key, value in load_file(path).items()})
        return judge.eval().requires_grad_(False)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits per attribute, `f classes`, for `images` `f 3 128 128` in 0..1."""
        x = self.stem(F.avg_pool2d(images * 2 - 1, 2))
        for i, block in enumerate(self.blocks):
            x = block(F.avg_pool2d(x, 2) if i else x)
        x = F.relu(self.norm(x))
        x = torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1)
        return {name: head(x) for name, head in self.heads.items()}

    @torch.no_grad()
    def probabilities(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Probabilities per attribute, `f classes` in the order of `CLASSES`, for `images` `f 3 h w` in 0..1.

        Pictures of other sizes are resized to 128 x 128. Raises ValueError if `images` has another layout.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"The judge needs pictures laid out as `f 3 h w`, but got {tuple(images.shape)}.")
        images = images.float()
        if images.shape[-2:] != (PIXELS, PIXELS):
            images = F.interpolate(images, size=(PIXELS, PIXELS), mode="bilinear", antialias=True)
        return {name: logits.softmax(dim=1) for name, logits in self(images.clamp(0, 1)).items()}

    def see(self, images: torch.Tensor) -> list[dict[str, str]]:
        """What each of the pictures `f 3 h w` in 0..1 shows, e.g. `{"thing": "star", "color": "red", "place": "plain",
        "background": "blue", "look": "normal"}`."""
        return _seen(self.probabilities(images))


def _seen(probabilities: dict[str, torch.Tensor]) -> list[dict[str, str]]:
    """The likeliest answers of each picture."""
    best = {name: p.argmax(dim=1).tolist() for name, p in probabilities.items()}
    return [{name: words[best[name][i]] for name, words in CLASSES.items()} for i in range(len(best["thing"]))]


def _likeliest_things(probabilities: dict[str, torch.Tensor], count: int) -> list[set[str]]:
    """The `count` likeliest things in each picture."""
    best = probabilities["thing"].topk(count, dim=1).indices.tolist()
    return [{CLASSES["thing"][i] for i in row} for row in best]


def examples(rng: random.Random, count: int) -> tuple[torch.Tensor, list[Answers]]:
    """Random renders `count 3 128 128` and the correct answers."""
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


def right(judge: Judge, images: torch.Tensor, truth: Sequence[Answers]) -> list[dict[str, bool]]:
    """Which of the right answers the judge gives about each picture `f 3 h w`. `truth`: as `answers` gives them; two
    things count if they are its likeliest two, under the name `pair`."""
    probabilities, result = judge.probabilities(images), []
    for saw, pair, answer in zip(_seen(probabilities), _likeliest_things(probabilities, 2), truth):
        found = {name: saw[name] == word for name, word in answer.items() if isinstance(word, str)}
        if isinstance(answer.get("thing"), tuple):
            found["pair"] = pair == set(answer["thing"])
        result.append(found)
    return result


def shares(found: Sequence[dict[str, bool]]) -> dict[str, float]:
    """The share of right answers per question, among the pictures it was asked about."""
    names = sorted({name for one in found for name in one})
    votes = {name: [one[name] for one in found if name in one] for name in names}
    return {name: sum(vote) / len(vote) for name, vote in votes.items()}
