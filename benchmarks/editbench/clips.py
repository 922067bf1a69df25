"""EditBench's clips: rendered pictures in motion, each with two edits whose correct result is known.

There are two splits of 33 clips and 66 edits each, fixed by their seeds: settings are chosen on `dev`, and `test` is
reported. 27 clips show things in places, 6 a shape on a pattern. Both splits hold the same motions and, up to one, the
same number of each kind of edit. They share neither motion parameters (`motions.PARAMETERS`) nor changes of an
attribute (`changes_of`: each ordered pair of a source and a target value belongs to one split).
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from miniature import looks, things
from miniature.clips import changed
from miniature.places import PLACES, Camera
from miniature.scene import Actor, View, object_mask, prompt, random_actor, render
from miniature.world import COLORS, PATTERNS, PERIOD, SHAPES

from . import motions
from .motions import OF_SHAPES, OF_THINGS, PAIR, SPLITS

FRAMES, LONG_FRAMES = 8, 16
QUICK_FRAMES = 4
THING_CLIPS = 3  # per motion

VALUES: dict[str, tuple[str, ...]] = {
    "thing": things.LEARNED,
    "color": things.THING_COLORS,
    "place": tuple(PLACES),
    "look": tuple(looks.LOOKS),
    "shape": SHAPES,
    "shape_color": tuple(COLORS),
    "pattern": PATTERNS,
    "background": tuple(COLORS),
}
# what a view or its object calls an attribute, where that is another name
FIELDS = {"thing": "kind", "shape": "kind", "shape_color": "color", "pattern": "place"}
KINDS: dict[str, tuple[str, ...]] = {  # the attributes each kind of edit changes
    "thing": ("thing",),
    "color": ("color",),
    "place": ("place",),
    "look": ("look",),
    "thing_place": ("thing", "place"),
    "shape": ("shape",),
    "shape_color": ("shape", "shape_color"),
    "background": ("background",),
    "pattern": ("pattern",),
    "object_background": ("shape", "shape_color", "background"),
}
# Of the n-th clip with things: all ten pairs of kinds in turn, so that each pair shares a clip.
THING_PAIRS = (
    *(("thing", "place"), ("color", "look"), ("thing", "thing_place"), ("place", "look"), ("color", "thing_place")),
    *(("thing", "look"), ("color", "place"), ("look", "thing_place"), ("thing", "color"), ("place", "thing_place")),
)
SHAPE_PAIRS = {
    "line": ("shape", "background"),
    "circle": ("shape_color", "pattern"),
    "hop": ("object_background", "shape"),
    "spin": ("pattern", "shape_color"),
    "grow_shrink": ("background", "object_background"),
    "pan": ("shape_color", "object_background"),
}
OPEN = ("place",)  # where in the new place the camera stands does not follow from the source
OBJECT = {"thing", "color", "shape", "shape_color"}  # attributes of the object, not of its surroundings
LEAST_CONTRAST = 0.2  # mean difference of the object's pixels from what lies behind it
LEAST_CHANGE = 4e-3  # mean difference of two frames a third of the clip apart


@dataclass(frozen=True)
class Edit:
    """One edit of a clip. `changes`: target values by attribute; `views`: the correct result, frame by frame."""

    kind: str
    changes: dict[str, str]
    views: tuple[View, ...]

    @property
    def target_prompt(self) -> str:
        return prompt(self.views[0])

    @property
    def one_answer(self) -> bool:
        """Whether source and target prompt leave one correct picture."""
        return not set(self.changes) & set(OPEN)


@dataclass(frozen=True)
class Clip:
    """A rendered clip and its edits. `views`: one per frame; `parameters`: of its motion, see `motions.PARAMETERS`."""

    name: str
    motion: str
    parameters: dict[str, float]
    views: tuple[View, ...]
    edits: tuple[Edit, ...]

    @property
    def source_prompt(self) -> str:
        return prompt(self.views[0])


def edit_of(kind: str, changes: dict[str, str], views: Sequence[View]) -> Edit:
    """The edit that changes some attributes of the views."""
    by_field = {FIELDS.get(attribute, attribute): value for attribute, value in changes.items()}
    return Edit(kind, changes, tuple(changed(views, **by_field)))


def blend_words(clip: Clip, edit: Edit) -> tuple[list[str], list[str]] | None:
    """The object's words in the source and the target prompt: LocalBlend lets the edit change the picture in their
    regions. None if more than the object changes: LocalBlend keeps the background, so it must stay off."""
    if not edit.changes.keys() <= OBJECT:
        return None
    old, new = (view.actors[0] for view in (clip.views[0], edit.views[0]))
    return _words(old), _words(new)


def _words(actor: Actor) -> list[str]:
    return [word for word in (actor.color, actor.kind) if word]


def split(name: str) -> list[Clip]:
    """The 33 clips of `dev` or `test`, the same at every call. Raises ValueError for another name."""
    if name not in SPLITS:
        raise ValueError(f"There is no split {name!r}: use one of {', '.join(SPLITS)}.")
    draw, clips = _Draw(name, f"editbench 2 {name}"), []
    names = [(motion, number) for number in range(THING_CLIPS) for motion in OF_THINGS]
    for n, (motion, number) in enumerate(names):
        frames = LONG_FRAMES if n % 5 == number else FRAMES
        clips.append(draw.clip(f"{motion}-{number + 1}", motion, THING_PAIRS[n % len(THING_PAIRS)], frames))
    for n, motion in enumerate(OF_SHAPES):
        frames = LONG_FRAMES if n == SPLITS.index(name) else FRAMES
        clips.append(draw.clip(f"{motion}-shape", motion, SHAPE_PAIRS[motion], frames))
    return clips


def quick() -> list[Clip]:
    """Two clips of four frames with one edit each, drawn like `dev`'s: enough to run every step of the benchmark."""
    draw = _Draw("dev", "editbench 2 quick")
    return [
        draw.clip("quick-line", "line", ("color",), QUICK_FRAMES),
        draw.clip("quick-pan", "pan", ("look",), QUICK_FRAMES),
    ]


@cache
def clips_of(name: str) -> tuple[Clip, ...]:
    """The clips of `dev`, `test` or `quick`. Raises ValueError for another name."""
    return tuple(quick() if name == "quick" else split(name))


def find_clip(split_name: str, name: str) -> Clip:
    return next(clip for clip in clips_of(split_name) if clip.name == name)


def motions_first(clips: Iterable[Clip]) -> list[Clip]:
    """The clips in thirds of eleven, each with every motion of things once and two shapes."""
    rounds = defaultdict(list)
    shapes = [clip for clip in clips if clip.name.endswith("-shape")]
    for clip in clips:
        number = shapes.index(clip) // 2 + 1 if clip in shapes else clip.name.rsplit("-", 1)[-1]
        rounds[str(number)].append(clip)
    return [clip for number in sorted(rounds) for clip in rounds[number]]


@cache
def changes_of(name: str, attribute: str) -> dict[str, tuple[str, ...]]:
    """The target values that a split's edits may give an attribute, per source value.

    Each source value's targets are shuffled and halved. Where their number is odd, the larger half goes to `dev` and to
    `test` in turn.
    """
    rng, halves = random.Random(f"editbench 2 {attribute}"), {}
    for i, source in enumerate(VALUES[attribute]):
        others = [value for value in VALUES[attribute] if value != source]
        rng.shuffle(others)
        middle = (len(others) + i % 2) // 2
        halves[source] = tuple(others[middle:] if name == "dev" else others[:middle])
    return halves


class _Draw:
    """Draws a split's clips one after another. It counts how often each value of an attribute was a source's or a
    target's and prefers rarer values."""

    def __init__(self, split_name: str, seed: str):
        self.split, self.seed, self.used = split_name, seed, defaultdict(Counter)

    def clip(self, name: str, motion: str, kinds: tuple[str, ...], frames: int) -> Clip:
        """Draws until source and targets can be told from what lies behind them, and the motion can be seen."""
        rng = random.Random(f"{self.seed} {name}")
        shaped = not set(KINDS[kinds[0]]) <= {"thing", "color", "place", "look"}
        while True:
            parameters = motions.draw_parameters(motion, self.split, rng)
            source = self._source(rng, kinds, shaped)
            changes = [{key: self._target(rng, key, source[key]) for key in KINDS[kind]} for kind in kinds]
            view = (_shape_view if shaped else _thing_view)(source, changes, rng, motion, parameters)
            views = motions.move(motion, view, parameters, frames, rng)
            edits = tuple(edit_of(kind, change, views) for kind, change in zip(kinds, changes))
            pairs = [pair for change in changes for pair in change.items()]
            if len(set(pairs)) < len(pairs) or shaped and not all(_has_one_answer(source, c) for c in changes):
                continue
            if all(_suits(shown) for shown in (views, *(edit.views for edit in edits))):
                for role, values in (("source", source), *(("target", change) for change in changes)):
                    for attribute, value in values.items():
                        self.used[role, attribute][value] += 1
                return Clip(name, motion, parameters, views, edits)

    def _source(self, rng: random.Random, kinds: tuple[str, ...], shaped: bool) -> dict[str, str | None]:
        """The source's attributes."""
        if shaped:
            return {
                a: self._rare(rng, "source", a, VALUES[a]) for a in ("shape", "shape_color", "pattern", "background")
            }
        colored = [name for name in things.LEARNED if things.THINGS[name].colors]
        thing = self._rare(rng, "source", "thing", colored if "color" in kinds else things.LEARNED)
        color = self._rare(rng, "source", "color", VALUES["color"]) if "color" in kinds else None
        return {
            "thing": thing,
            "color": color,
            "place": self._rare(rng, "source", "place", VALUES["place"]),
            "look": "normal",
        }

    def _target(self, rng: random.Random, attribute: str, source: str) -> str:
        return self._rare(rng, "target", attribute, changes_of(self.split, attribute)[source])

    def _rare(self, rng: random.Random, role: str, attribute: str, values) -> str:
        """One of the values; each earlier use makes it a tenth as likely."""
        used = self.used[role, attribute]
        return rng.choices(values, weights=[0.1 ** used[value] for value in values])[0]


def _thing_view(
    source: dict, changes: list[dict], rng: random.Random, motion: str, parameters: dict[str, float]
) -> View:
    """The first frame: one thing, or two for a motion of two, the one to edit first."""
    camera = Camera(rng.uniform(0, 1000), rng.uniform(-4, 4), rng.uniform(0.9, 1.1))
    actor = random_actor(rng, source["thing"]).edited(color=source["color"], radius=_radius(rng, motion, parameters))
    actors = (actor,)
    if motion in PAIR:
        avoid = {source["thing"], *(change.get("thing") for change in changes)}
        other = rng.choice([name for name in things.LEARNED if name not in avoid])
        other = random_actor(rng, other).edited(x=rng.uniform(86, 94), color=None, radius=rng.uniform(22, 26))
        actors = (actor.edited(x=rng.uniform(34, 42), radius=rng.uniform(22, 26)), other)
        actors = tuple(one.edited(y=rng.uniform(50, 78)) for one in actors)
    return View(actors, source["place"], look=source["look"], camera=camera)


def _shape_view(source: dict, _, rng: random.Random, motion: str, parameters: dict[str, float]) -> View:
    """The first frame of a clip with a shape on a pattern."""
    camera = Camera(rng.uniform(0, PERIOD), rng.uniform(0, PERIOD))
    actor = random_actor(rng, source["shape"]).edited(color=source["shape_color"])
    actor = actor.edited(radius=_radius(rng, motion, parameters))
    return View((actor,), source["pattern"], source["background"], camera=camera)


def _radius(rng: random.Random, motion: str, parameters: dict[str, float]) -> float:
    """The object's radius in the first frame; at most 38 pixels, at least 24, in all of them."""
    growth = parameters["factor"] if motion in ("grow_shrink", "zoom") else 1.0
    return rng.uniform(max(26, 26 / growth), min(36, 38 / growth))


def _suits(views: tuple[View, ...]) -> bool:
    """Whether the object stands out from what lies behind it, and the motion can be seen in the clip's first third."""
    pair = (views[len(views) // 3], views[0])
    mask, shown = object_mask(pair[:1]), render(pair)
    behind = render([pair[0].edited(actors=pair[0].actors[1:])])
    contrast = ((shown[:1] - behind).abs().amax(dim=1, keepdim=True) * mask).sum() / mask.sum().clamp(min=1)
    return bool(contrast >= LEAST_CONTRAST and (shown[0] - shown[1]).abs().mean() > LEAST_CHANGE)


def _has_one_answer(source: dict[str, str], changes: dict[str, str]) -> bool:
    """Whether source and target prompt leave one right place for the target's pattern. A plain source does not show
    where it begins, and a striped one not where it begins vertically. Black's second tone is lighter than its first,
    every other colour's is darker, so dark and light could change places."""
    target = source | changes
    if target["shape_color"] == target["background"] or source["shape_color"] == source["background"]:
        return False
    if target["pattern"] == "plain":
        return True
    if source["pattern"] in ("plain", "striped") and source["pattern"] != target["pattern"]:
        return False
    return source["background"] == target["background"] or "black" not in (source["background"], target["background"])
