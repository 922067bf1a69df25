"""How EditBench's clips move: ranges of parameters that the two splits do not share, and the motion itself.

Values are for the whole clip, whatever its number of frames: lengths in pixels, angles in radians, headings clockwise
from "to the right".
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from miniature import motion as moves
from miniature.scene import View

DEGREE = math.pi / 180
LOW, HIGH = 40.0, 88.0  # pixels: where the object's centre stays, as in the miniature's training

# Each motion's parameters, `dev` first. A range of whole numbers holds a single value.
PARAMETERS: dict[str, dict[str, tuple[tuple[float, float], tuple[float, float]]]] = {
    "line": {"heading": ((0.0, math.pi), (math.pi, 2 * math.pi)), "span": ((22.0, 31.0), (33.0, 46.0))},
    "circle": {"orbit": ((11.0, 16.0), (18.0, 24.0)), "turns": ((0.55, 0.75), (-1.0, -0.8))},
    "hop": {"hops": ((1, 1), (2, 2)), "height": ((16.0, 23.0), (25.0, 34.0)), "drift": ((8.0, 18.0), (-18.0, -8.0))},
    "squash": {"times": ((1, 1), (2, 2)), "amount": ((0.22, 0.28), (0.3, 0.36))},
    "grow_shrink": {"factor": ((1.2, 1.35), (0.7, 0.8))},
    "pan": {"dx": ((22.0, 40.0), (-64.0, -44.0)), "dy": ((1.0, 4.0), (-4.0, -1.0))},
    "zoom": {"factor": ((1.15, 1.25), (0.76, 0.86))},
    "pass": {"distance": ((34.0, 42.0), (44.0, 54.0))},
    "enter": {"from_left": ((1, 1), (0, 0)), "way": ((0.45, 0.55), (0.6, 0.7))},
    "spin": {"turn": ((60 * DEGREE, 110 * DEGREE), (-200 * DEGREE, -120 * DEGREE))},
}
SPLITS = ("dev", "test")
OF_THINGS = tuple(motion for motion in PARAMETERS if motion != "spin")  # things stand upright
OF_SHAPES = ("line", "circle", "hop", "spin", "grow_shrink", "pan")
PAIR = ("pass",)  # motions of two things


def ranges_of(motion: str, split: str) -> dict[str, tuple[float, float]]:
    """The ranges of a motion's parameters in one split."""
    return {name: ranges[SPLITS.index(split)] for name, ranges in PARAMETERS[motion].items()}


def draw_parameters(motion: str, split: str, rng: random.Random) -> dict[str, float]:
    """A motion's parameters for one clip."""
    return {
        name: low if isinstance(low, int) else rng.uniform(low, high)
        for name, (low, high) in ranges_of(motion, split).items()
    }


def move(motion: str, view: View, p: dict[str, float], frames: int, rng: random.Random) -> tuple[View, ...]:
    """The view in motion with the parameters `p`. The object stays inside the picture, so a motion along a path moves
    the whole path there."""
    clip = moves.still(view, frames)
    if motion == "line":
        clip = _along(
            clip,
            [(p["span"] * math.cos(p["heading"]) * t, p["span"] * math.sin(p["heading"]) * t) for t in _times(frames)],
        )
    elif motion == "circle":
        start = rng.uniform(-math.pi, math.pi)
        angles = [start + 2 * math.pi * p["turns"] * t for t in _times(frames)]
        clip = _along(clip, [(p["orbit"] * math.cos(angle), p["orbit"] * math.sin(angle)) for angle in angles])
    elif motion == "hop":
        clip = _along(moves.hopping(clip, p["hops"], p["height"]), [(p["drift"] * t, 0.0) for t in _times(frames)])
    elif motion == "squash":
        clip = moves.squashing(clip, p["times"], p["amount"])
    elif motion == "grow_shrink":
        clip = moves.growing(clip, p["factor"])
    elif motion == "pan":
        clip = moves.panning(clip, p["dx"], p["dy"])
    elif motion == "zoom":
        clip = moves.zooming(clip, p["factor"])
    elif motion == "pass":
        clip = moves.passing(clip, p["distance"])
    elif motion == "enter":  # the clip begins when the object has gone a part of its way
        hidden = round(frames * p["way"])
        clip = moves.entering(moves.still(view, frames + hidden), from_left=bool(p["from_left"]))[hidden:]
    else:
        clip = moves.turning(clip, p["turn"])
    return tuple(_inside(clip) if motion in ("line", "circle", "hop") else clip)


def _times(frames: int) -> list[float]:
    return [i / (frames - 1) for i in range(frames)]


def _along(clip: Sequence[View], offsets: Sequence[tuple[float, float]]) -> list[View]:
    """The object moved by an offset per frame."""
    return [view.with_actor(x=view.actors[0].x + dx, y=view.actors[0].y + dy) for view, (dx, dy) in zip(clip, offsets)]


def _inside(clip: Sequence[View]) -> list[View]:
    """The clip shifted by as little as keeps the object's centre between `LOW` and `HIGH`."""
    shift = lambda track: max(LOW - min(track), 0) or min(HIGH - max(track), 0)
    dx, dy = (shift([getattr(view.actors[0], axis) for view in clip]) for axis in ("x", "y"))
    return _along(clip, [(dx, dy)] * len(clip))
