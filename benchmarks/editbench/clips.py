"""EditBench's clips: rendered scenes in motion, each with two edits whose correct result is known.

There are two splits of 24 clips and 48 edits each, fixed by their seeds: settings are chosen on `dev`, and `test` is
reported. Both hold each motion, kind of edit and frame count equally often. They share neither motion parameters
(the ranges in `PARAMETERS` are disjoint) nor attribute changes (`changes_of`: each ordered pair of a source and a
target value belongs to one split). The object always stays within the placements that the miniature was trained on
(`world.random_scene`).
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from miniature.world import COLORS, PATTERNS, PERIOD, SHAPES, Scene, prompt

SPLITS = ("dev", "test")
MOTIONS = ("line", "circle", "bounce", "spin", "grow_shrink", "scroll")
FRAMES, LONG_FRAMES = 8, 16
LONG_CLIPS = {
    "dev": ("line-1", "circle-2", "spin-3", "scroll-4"),
    "test": ("circle-1", "bounce-2", "grow_shrink-3", "scroll-4"),
}
QUICK_FRAMES = 4

OBJECT = ("color", "shape")  # the object's words, in the prompt's order
VALUES = {"shape": SHAPES, "color": tuple(COLORS), "pattern": PATTERNS, "background": tuple(COLORS)}
KINDS: dict[str, tuple[str, ...]] = {  # the attributes each kind of edit changes
    "color": ("color",),
    "shape": ("shape",),
    "background": ("background",),
    "shape_color": ("shape", "color"),
    "pattern": ("pattern",),
    "object_background": ("shape", "color", "background"),
}
# The kinds of the n-th motion's four clips are these, shifted by n. Thus each kind occurs 8 times in a split, each
# motion meets each kind, and each pair of kinds shares a clip.
KIND_PAIRS = ((0, 1), (2, 4), (3, 5), (1, 4))

LOW, HIGH = 38.0, 90.0  # pixels: the object's centre, as `world.random_scene` draws it
RADIUS_LOW, RADIUS_HIGH = 24.0, 40.0  # pixels: the object's radius, likewise
DEGREE = math.pi / 180

# The ranges in which the splits' motions differ. Values are for the whole clip, whatever its frame count: lengths in
# pixels, angles in radians, headings clockwise from "to the right".
PARAMETERS: dict[str, dict[str, dict[str, tuple[float, float]]]] = {
    "dev": {
        "line": {"heading": (0.0, math.pi), "span": (22, 31)},  # downwards
        "circle": {"orbit": (11, 16), "turns": (0.55, 0.75)},  # clockwise
        "bounce": {"height": (20, 29), "hops": (1.0, 1.4), "drift": (8, 18)},  # to the right
        "spin": {"turn": (60 * DEGREE, 110 * DEGREE)},  # clockwise
        "grow_shrink": {"amplitude": (4, 5.5), "cycles": (0.5, 0.75)},  # grows first
        "scroll": {"heading": (-50 * DEGREE, 50 * DEGREE), "span": (16, 28)},  # to the right
    },
    "test": {
        "line": {"heading": (math.pi, 2 * math.pi), "span": (33, 46)},  # upwards
        "circle": {"orbit": (18, 24), "turns": (-1.0, -0.8)},  # anticlockwise
        "bounce": {"height": (31, 44), "hops": (1.6, 2.1), "drift": (-18, -8)},  # to the left
        "spin": {"turn": (-200 * DEGREE, -120 * DEGREE)},  # anticlockwise
        "grow_shrink": {"amplitude": (6, 7.8), "cycles": (-1.25, -0.9)},  # shrinks first
        "scroll": {"heading": (130 * DEGREE, 230 * DEGREE), "span": (32, 56)},  # to the left
    },
}


@dataclass(frozen=True)
class Edit:
    """One edit of a clip. `changes`: target values by attribute;
    `target_scenes`: the correct result, frame by frame."""

    kind: str
    changes: dict[str, str]
    target_scenes: tuple[Scene, ...]

    @property
    def target_prompt(self) -> str:
        return prompt(self.target_scenes[0])


@dataclass(frozen=True)
class Clip:
    """A rendered clip and its edits. `scenes`: one per frame; `parameters`: of its motion, see `PARAMETERS`."""

    name: str
    motion: str
    parameters: dict[str, float]
    scenes: tuple[Scene, ...]
    edits: tuple[Edit, ...]

    @property
    def source_prompt(self) -> str:
        return prompt(self.scenes[0])


def edit_of(kind: str, changes: dict[str, str], scenes: tuple[Scene, ...]) -> Edit:
    """The edit that changes some attributes of the scenes."""
    return Edit(kind, changes, tuple(scene.edited(**changes) for scene in scenes))


def blend_words(clip: Clip, edit: Edit) -> tuple[list[str], list[str]] | None:
    """The object's words in the source and the target prompt: LocalBlend lets the edit change the picture in their
    regions. None if more than the object changes: LocalBlend keeps the background, so it must stay off."""
    if not edit.changes.keys() <= set(OBJECT):
        return None
    old, new = ([getattr(scene, name) for name in OBJECT] for scene in (clip.scenes[0], edit.target_scenes[0]))
    return old, new


def split(name: str) -> list[Clip]:
    """The 24 clips of `dev` or `test`, the same at every call. Raises ValueError for another name."""
    if name not in SPLITS:
        raise ValueError(f"There is no split {name!r}: use one of {', '.join(SPLITS)}.")
    draw, clips = _Draw(name, f"editbench {name}"), []
    for m, motion in enumerate(MOTIONS):
        for c, pair in enumerate(KIND_PAIRS):
            clip = f"{motion}-{c + 1}"
            frames = LONG_FRAMES if clip in LONG_CLIPS[name] else FRAMES
            clips.append(draw.clip(clip, motion, [list(KINDS)[(m + k) % len(KINDS)] for k in pair], frames))
    return clips


def quick() -> list[Clip]:
    """Two clips of four frames with one edit each, drawn like `dev`'s: enough to run every step of the benchmark."""
    draw = _Draw("dev", "editbench quick")
    return [
        draw.clip("quick-line", "line", ["color"], QUICK_FRAMES),
        draw.clip("quick-scroll", "scroll", ["object_background"], QUICK_FRAMES),
    ]


@cache
def clips_of(name: str) -> tuple[Clip, ...]:
    """The clips of `dev`, `test` or `quick`. Raises ValueError for another name."""
    return tuple(quick() if name == "quick" else split(name))


def find_clip(split_name: str, name: str) -> Clip:
    return next(clip for clip in clips_of(split_name) if clip.name == name)


def motions_first(clips: Iterable[Clip]) -> list[Clip]:
    """Every motion's first clip, then every motion's second, and so on: the first few show all motions."""
    return sorted(clips, key=lambda clip: clip.name.rsplit("-")[-1])


@cache
def changes_of(name: str, attribute: str) -> dict[str, tuple[str, ...]]:
    """The target values that a split's edits may give an attribute, per source value.

    Each source value's targets are shuffled and halved. Where their number is odd, the larger half goes to `dev` and to
    `test` in turn.
    """
    rng, halves = random.Random(f"editbench {attribute}"), {}
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
        self.split, self.rng, self.used = split_name, random.Random(seed), defaultdict(Counter)

    def clip(self, name: str, motion: str, kinds: list[str], frames: int) -> Clip:
        source, edits = self.looks(motion, kinds, self.rng)
        for role, values in (("source", source), *(("target", changes) for changes in edits)):
            for attribute, value in values.items():
                self.used[role, attribute][value] += 1
        # A clip that is drawn again uses its own random numbers and does not count, so all others stay the same. (92:
        # the first seed with which every colour and shape still occurs.)
        own = random.Random(f"editbench draw 92 {self.split} {name}")
        while not all(_has_one_answer(source, changes) for changes in edits):
            source, edits = self.looks(motion, kinds, own)
        ranges = PARAMETERS[self.split][motion]
        parameters = {key: self.rng.uniform(low, high) for key, (low, high) in ranges.items()}
        scenes = _move(motion, Scene(**source), parameters, frames, self.rng)
        edits = tuple(edit_of(kind, changes, scenes) for kind, changes in zip(kinds, edits))
        return Clip(name, motion, parameters, scenes, edits)

    def looks(self, motion: str, kinds: list[str], rng: random.Random) -> tuple[dict[str, str], list[dict[str, str]]]:
        """A source's attributes and the changes of its edits, drawn until they suit the motion and each other."""
        # each earlier use makes a value a tenth as likely
        rare = lambda values, used: rng.choices(values, weights=[0.1 ** used[value] for value in values])[0]
        while True:
            source = {a: rare(values, self.used["source", a]) for a, values in VALUES.items()}
            targets = {a: changes_of(self.split, a)[source[a]] for a in VALUES}
            edits = [{a: rare(targets[a], self.used["target", a]) for a in KINDS[kind]} for kind in kinds]
            if all(_suits(motion, look) for look in (source, *(source | changes for changes in edits))):
                pairs = [pair for changes in edits for pair in changes.items()]
                if len(set(pairs)) == len(pairs):  # two edits of a clip give no attribute the same value
                    return source, edits


def _has_one_answer(source: dict[str, str], changes: dict[str, str]) -> bool:
    """Whether source and target prompt leave one right place for the target's pattern. A plain source does not show
    where it begins, and a striped one not where it begins vertically. Black's second tone is lighter than its first,
    every other colour's is darker, so dark and light could change places."""
    target = source | changes
    if target["pattern"] == "plain":
        return True
    if source["pattern"] in ("plain", "striped") and source["pattern"] != target["pattern"]:
        return False
    return source["background"] == target["background"] or "black" not in (source["background"], target["background"])


def _suits(motion: str, look: dict[str, str]) -> bool:
    """Whether the object stands out and the motion is visible: a plain background does not scroll, nor does a round
    shape spin."""
    return not (
        look["color"] == look["background"]
        or motion == "scroll"
        and look["pattern"] == "plain"
        or motion == "spin"
        and look["shape"] in ("circle", "ring")
    )


def _move(motion: str, scene: Scene, p: dict[str, float], frames: int, rng: random.Random) -> tuple[Scene, ...]:
    """The scene in motion with the parameters `p`; place, size and angle are drawn."""
    times = [i / (frames - 1) for i in range(frames)]
    x = y = radius = [0.0] * frames  # relative to the drawn placement, as angle and offsets are below
    angle = offset_x = offset_y = [0.0] * frames
    if motion == "line":
        x = [p["span"] * math.cos(p["heading"]) * t for t in times]
        y = [p["span"] * math.sin(p["heading"]) * t for t in times]
    elif motion == "circle":
        start = rng.uniform(-math.pi, math.pi)
        x = [p["orbit"] * math.cos(start + 2 * math.pi * p["turns"] * t) for t in times]
        y = [p["orbit"] * math.sin(start + 2 * math.pi * p["turns"] * t) for t in times]
    elif motion == "bounce":  # hops of equal length, each a parabola, starting at the top of one
        phases = [(p["hops"] * t + 0.5) % 1 for t in times]
        x = [p["drift"] * t for t in times]
        y = [-p["height"] * 4 * phase * (1 - phase) for phase in phases]
    elif motion == "spin":
        angle = [p["turn"] * t for t in times]
    elif motion == "grow_shrink":
        radius = [p["amplitude"] * math.sin(2 * math.pi * p["cycles"] * t) for t in times]
    elif motion == "scroll":  # a pattern that moves to the right has an offset that shrinks: see `world.render`
        offset_x = [-p["span"] * math.cos(p["heading"]) * t for t in times]
        offset_y = [-p["span"] * math.sin(p["heading"]) * t for t in times]

    room = lambda track, low, high: rng.uniform(low - min(track), high - max(track))  # keeps the track between them
    place = {"x": room(x, LOW, HIGH), "y": room(y, LOW, HIGH), "radius": room(radius, RADIUS_LOW, RADIUS_HIGH)}
    place["angle"] = rng.uniform(-math.pi, math.pi)
    place |= {key: rng.uniform(0, PERIOD) for key in ("offset_x", "offset_y")}
    tracks = dict(x=x, y=y, radius=radius, angle=angle, offset_x=offset_x, offset_y=offset_y)
    scenes = []
    for i in range(frames):
        now = {key: place[key] + track[i] for key, track in tracks.items()}
        offsets = {key: now[key] % PERIOD for key in ("offset_x", "offset_y")}
        scenes.append(scene.edited(**now | offsets))
    return tuple(scenes)
