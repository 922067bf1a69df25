"""Motion in the miniature's world: a clip is a list of views, one per frame, and each motion is applied to a clip.

    clip = panning(hopping(along(still(view, 16), path), hops=2, height=20), 60, 0)

Motions change only poses and the camera, so the correct result of an edit is the same clip with other attributes
(`edited`). Things that move along a path start and stop gently; the camera moves evenly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from .scene import View
from .world import SIZE

Clip = list[View]
Point = tuple[float, float]


def still(view: View, frames: int) -> Clip:
    """The view, `frames` times."""
    return [view] * frames


def edited(clip: Sequence[View], actor: int | None = None, **attributes) -> Clip:
    """The same motion with other attributes in every frame, of the view or of one of its
    actors: the correct result of an edit."""
    if actor is None:
        return [view.edited(**attributes) for view in clip]
    return [view.with_actor(actor, **attributes) for view in clip]


def along(clip: Sequence[View], path: Sequence[Point], actor: int = 0) -> Clip:
    """The actor's centre follows the Bézier curve with these four control points, in pixels. Raises ValueError for
    another number of points."""
    if len(path) != 4:
        raise ValueError(f"The object's path needs 4 control points (x, y), but got {len(path)}.")
    moved = []
    for view, even in zip(clip, _times(clip)):
        s = _gentle(even)
        weights = ((1 - s) ** 3, 3 * s * (1 - s) ** 2, 3 * s * s * (1 - s), s**3)
        x, y = (sum(w * point[axis] for w, point in zip(weights, path)) for axis in (0, 1))
        moved.append(view.with_actor(actor, x=x, y=y))
    return moved


def turning(clip: Sequence[View], turn: float, actor: int = 0) -> Clip:
    """The actor turns by `turn` radians over the clip."""
    return [
        view.with_actor(actor, angle=view.actors[actor].angle + turn * _gentle(even))
        for view, even in zip(clip, _times(clip))
    ]


def growing(clip: Sequence[View], factor: float, actor: int = 0) -> Clip:
    """The actor's radius ends `factor` times as large."""
    return [
        view.with_actor(actor, radius=view.actors[actor].radius * factor ** _gentle(even))
        for view, even in zip(clip, _times(clip))
    ]


def hopping(clip: Sequence[View], hops: int, height: float, actor: int = 0, squash: float = 0.25) -> Clip:
    """The actor hops `hops` times, `height` pixels high; it is squashed on the ground and a little taller above."""
    result = []
    for view, even in zip(clip, _times(clip)):
        up = abs(math.sin(math.pi * hops * even))
        one = view.actors[actor]
        stretch = one.stretch * (1 - squash * (1 - up) ** 2 + 0.3 * squash * up)
        result.append(view.with_actor(actor, y=one.y - height * up, stretch=stretch))
    return result


def squashing(clip: Sequence[View], times: int, amount: float = 0.3, actor: int = 0) -> Clip:
    """The actor is squashed `times` times, to 1 - `amount` of its height, at equal area."""
    result = []
    for view, even in zip(clip, _times(clip)):
        height = 1 - amount * math.sin(math.pi * times * even) ** 2
        result.append(view.with_actor(actor, stretch=view.actors[actor].stretch * height))
    return result


def passing(clip: Sequence[View], distance: float, actors: tuple[int, int] = (0, 1)) -> Clip:
    """Two actors pass each other: each moves `distance` pixels, the left one to the right and the right one to the
    left. Raises ValueError if the view does not have both."""
    first, second = actors
    if max(actors) >= len(clip[0].actors):
        raise ValueError(f"Two things are to pass each other, but the picture holds {len(clip[0].actors)}.")
    sign = 1 if clip[0].actors[first].x <= clip[0].actors[second].x else -1
    result = []
    for view, even in zip(clip, _times(clip)):
        step = sign * distance * _gentle(even)
        for actor, way in ((first, step), (second, -step)):
            view = view.with_actor(actor, x=view.actors[actor].x + way)
        result.append(view)
    return result


def entering(clip: Sequence[View], actor: int = 0, from_left: bool = True) -> Clip:
    """The actor comes from outside the picture to its place in the clip."""
    result = []
    for view, even in zip(clip, _times(clip)):
        one = view.actors[actor]
        outside = -1.5 * one.radius if from_left else SIZE + 1.5 * one.radius
        result.append(view.with_actor(actor, x=outside + (one.x - outside) * math.sin(0.5 * math.pi * even)))
    return result


def panning(clip: Sequence[View], dx: float, dy: float = 0.0) -> Clip:
    """The camera moves by `dx` pixels to the right and `dy` down; things keep their place in the picture."""
    return [
        view.edited(
            camera=replace(view.camera, pan_x=view.camera.pan_x + dx * even, pan_y=view.camera.pan_y + dy * even)
        )
        for view, even in zip(clip, _times(clip))
    ]


def zooming(clip: Sequence[View], factor: float) -> Clip:
    """The camera zooms in on the picture's middle until place and things are `factor` times as large."""
    result = []
    for view, even in zip(clip, _times(clip)):
        zoom = factor**even
        actors = tuple(
            one.edited(
                x=SIZE / 2 + (one.x - SIZE / 2) * zoom, y=SIZE / 2 + (one.y - SIZE / 2) * zoom, radius=one.radius * zoom
            )
            for one in view.actors
        )
        result.append(view.edited(actors=actors, camera=replace(view.camera, zoom=view.camera.zoom * zoom)))
    return result


def _times(clip: Sequence[View]) -> list[float]:
    """0 to 1, evenly, one per frame."""
    return [i / max(len(clip) - 1, 1) for i in range(len(clip))]


def _gentle(even: float) -> float:
    """0 to 1, slower at both ends."""
    return 0.5 * even + 0.25 * (1 - math.cos(math.pi * even))
