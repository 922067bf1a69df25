"""Pictures of things and shapes, in places or on patterns.

Every picture is rendered from a `View`, so the correct result of every edit is known: the same view with other things,
another place or another look. So a classifier can be trained on renders alone. Coordinates and lengths
are in pixels of a 128 x 128 picture; angles in radians, clockwise.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from . import looks, things, world
from .looks import LOOKS
from .places import PLACES, WHERE, Camera, draw_place
from .world import COLORS, PATTERNS, PERIOD, SHAPES, SIZE

TILT = math.radians(20)  # things stand upright, up to this angle

PHRASINGS = (  # those after the seventh do not go with a look
    "{objects} {where}",
    "{objects} {where}",
    "{objects} {where}",
    "{objects}, {where}",
    "a picture of {objects} {where}",
    "a video of {objects} {where}",
    "a small picture of {objects} {where}",
    "{objects} moving {where}",
    "there is {objects} {where}",
    "we see {objects} {where}",
    "{where}, {objects}",
    "{where} there is {objects}",
)
ON_PATTERNS = (  # of one object; `bare`: without articles
    "{objects} on {ground} background",
    "{objects} on {ground} background",
    "{objects}, {bare_ground} background",
    "{bare}, {bare_ground} background",
    "{objects} in front of {ground} background",
    "{objects} moving over {ground} background",
    "a video of {objects} on {ground} background",
    "a picture of {objects} with {ground} background",
)


@dataclass(frozen=True)
class Actor:
    """A thing or a shape in the picture. `x`, `y`: its centre (a thing's centre of mass); `radius`: of a shape's
    circumscribed circle; a thing of that radius covers 1.9 times its square; `color`: every shape has one, None is a
    thing's own; `stretch`: how much taller than normal, at equal area."""

    kind: str
    color: str | None = None
    x: float = 64.0
    y: float = 64.0
    radius: float = 32.0
    angle: float = 0.0
    mirrored: bool = False
    stretch: float = 1.0

    def edited(self, **attributes) -> Actor:
        """The same pose with other attributes."""
        return replace(self, **attributes)


@dataclass(frozen=True)
class View:
    """What one picture shows. `actors`: from back to front; `place`: one of the places, or a pattern of the colour
    `background`, which then the camera moves like a layer of depth 1."""

    actors: tuple[Actor, ...]
    place: str = "meadow"
    background: str | None = None
    look: str = "normal"
    camera: Camera = Camera()

    def edited(self, **attributes) -> View:
        """The same view with another place, background, look or camera."""
        return replace(self, **attributes)

    def with_actor(self, number: int = 0, **attributes) -> View:
        """The same view with one actor's attributes changed."""
        actors = list(self.actors)
        actors[number] = actors[number].edited(**attributes)
        return replace(self, actors=tuple(actors))


def shape_view(shape: str, color: str, pattern: str, background: str, **pose: float) -> View:
    """One shape on a pattern. `pose`: of the shape, see `Actor`."""
    return View((Actor(shape, color, **pose),), pattern, background)


def render(views: Sequence[View]) -> torch.Tensor:
    """Pictures of the views, `b 3 128 128` in 0..1. Raises ValueError for names outside this world."""
    return torch.stack([_render(view) for view in views])


def _render(view: View) -> torch.Tensor:
    picture = _ground(view)
    for actor in view.actors:
        _draw(picture, actor)
    return looks.apply(view.look, picture)


def object_mask(views: Sequence[View], actor: int = 0) -> torch.Tensor:
    """The share of each pixel that the actor covers and nothing hides, `b 1 128 128` in 0..1."""
    masks = torch.zeros(len(views), 1, SIZE, SIZE)
    for mask, view in zip(masks, views):
        for i, other in enumerate(view.actors[actor:]):
            if i:
                hidden = torch.zeros(1, SIZE, SIZE)
                _draw(hidden, other)
                mask.mul_(1 - hidden)
            else:
                _draw(mask, other)
    return masks


def _ground(view: View) -> torch.Tensor:
    if view.place not in PATTERNS:
        return draw_place(view.place, view.camera)
    if view.background not in COLORS:
        raise ValueError(f"a {view.place} background needs a colour out of {', '.join(COLORS)}, not {view.background}")
    axis = (torch.arange(SIZE) + 0.5 - SIZE / 2) / view.camera.zoom + SIZE / 2
    return world.ground(
        view.place, view.background, (axis + view.camera.pan_x).view(1, -1), (axis + view.camera.pan_y).view(-1, 1)
    )


def _draw(picture: torch.Tensor, actor: Actor) -> None:
    """Draws the actor over the picture `3 h w`, or its coverage over a mask `1 h w`, in place."""
    pose = (actor.x, actor.y, actor.radius, actor.angle)
    if actor.kind not in SHAPES:
        things.draw(picture, actor.kind, actor.color, *pose, actor.mirrored, actor.stretch)
        return
    inside = world.coverage(actor.kind, *pose, stretch=actor.stretch)
    color = torch.ones(1, 1, 1) if len(picture) == 1 else world.rgb(actor.color)
    picture.lerp_(color.expand_as(picture), inside.expand_as(picture))


# -- in words ---------------------------------------------------------------------------------------------------------


def describe(actor: Actor) -> str:
    """E.g. `a cat`, `an orange car`, `a red circle`."""
    words = f"{actor.color} {actor.kind}" if actor.color else actor.kind
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def where(view: View, pattern: str = "on {} background") -> str:
    """E.g. `in a meadow`, `on a striped blue background`; `pattern`: how patterned backgrounds are put."""
    if view.place not in PATTERNS:
        return WHERE[view.place]
    words = view.background if view.place == "plain" else f"{view.place} {view.background}"
    return pattern.format(f"{'an' if words[0] in 'aeiou' else 'a'} {words}")


def prompt(view: View, phrasing: str = PHRASINGS[0], look_phrasing: int = 0) -> str:
    """The view in words, e.g. `a pencil sketch of a cat and a red ball on a beach`."""
    objects = " and ".join(describe(actor) for actor in view.actors)
    return looks.IN_WORDS[view.look][look_phrasing].format(phrasing.format(objects=objects, where=where(view)))


def random_prompt(view: View, rng: random.Random) -> str:
    """The view in one of many phrasings."""
    patterned = view.place in PATTERNS and len(view.actors) == 1 and view.look == "normal"
    if patterned and rng.random() < 0.7:
        words = {"objects": describe(view.actors[0]), "ground": where(view, "{}")}
        bare = {name: text.split(" ", 1)[1] for name, text in words.items()}
        return rng.choice(ON_PATTERNS).format(**words, bare=bare["objects"], bare_ground=bare["ground"])
    phrasing = rng.choice(PHRASINGS if view.look == "normal" else PHRASINGS[:-5])
    return prompt(view, phrasing, rng.randrange(len(looks.IN_WORDS[view.look])))


# -- at random --------------------------------------------------------------------------------------------------------


def random_view(rng: random.Random, kinds: Sequence[str] = things.LEARNED, shapes: float = 0.3) -> View:
    """A view with everything drawn at random: with probability `shapes` a shape on a pattern, otherwise things out of
    `kinds` (now and then a shape) in places, half of them in the normal look."""
    if rng.random() < shapes:
        return random_shape_view(rng)
    if rng.random() < 0.12:
        background = rng.choice(list(COLORS))
        camera = Camera(rng.uniform(0, PERIOD), rng.uniform(0, PERIOD))
        actor = random_actor(rng, rng.choice(kinds), background)
        return View((actor,), rng.choice(PATTERNS), background, camera=camera)
    pair = rng.random() < 0.2
    chosen = rng.sample(kinds, 2) if pair else [rng.choice(SHAPES) if rng.random() < 0.08 else rng.choice(kinds)]
    actors = [random_actor(rng, kind) for kind in chosen]
    if pair:  # side by side, with little or no overlap
        left, right = rng.uniform(30, 42), rng.uniform(86, 98)
        actors = [actor.edited(x=x, radius=rng.uniform(21, 27)) for actor, x in zip(actors, (left, right))]
        rng.shuffle(actors)
    look = "normal" if rng.random() < 0.5 else rng.choice(list(LOOKS))
    camera = Camera(rng.uniform(0, 1000), rng.uniform(-8, 8), rng.uniform(0.85, 1.2))
    return View(tuple(actors), rng.choice(list(PLACES)), look=look, camera=camera)


def random_shape_view(rng: random.Random) -> View:
    """A shape of any colour, size and angle on any pattern of another colour."""
    color, background = rng.sample(list(COLORS), 2)
    shape, pattern = rng.choice(SHAPES), rng.choice(PATTERNS)
    pose = {"x": rng.uniform(38, 90), "y": rng.uniform(38, 90), "radius": rng.uniform(24, 40)}
    view = shape_view(shape, color, pattern, background, **pose, angle=rng.uniform(-math.pi, math.pi))
    return view.edited(camera=Camera(rng.uniform(0, PERIOD), rng.uniform(0, PERIOD)))


def random_actor(rng: random.Random, kind: str, avoid: str | None = None) -> Actor:
    """A thing or shape anywhere near the middle; things that come in colours have one more often than not."""
    x, y = rng.uniform(40, 88), rng.uniform(42, 90)
    if kind in SHAPES:
        color = rng.choice([color for color in COLORS if color != avoid])
        return Actor(kind, color, x, y, rng.uniform(24, 38), rng.uniform(-math.pi, math.pi))
    choices = [color for color in things.THING_COLORS if color != avoid]
    color = rng.choice(choices) if things.THINGS[kind].colors and rng.random() < 0.65 else None
    tilt = rng.uniform(-TILT, TILT) if rng.random() < 0.6 else 0.0
    return Actor(kind, color, x, y, rng.uniform(26, 38), tilt, rng.random() < 0.5)
