"""The clips: rendered scenes that move on at the same speed however long they are, with edits of known results."""

from __future__ import annotations

import math

from benchmarks.editbench.clips import Clip, Edit
from miniature.world import PERIOD, Scene

LAP = 24  # frames in which an object goes once around its orbit
LOOKS = {  # each with the edits made of it
    "square": (
        Scene(shape="square", color="blue", pattern="dotted", background="white", radius=32.0, angle=0.3),
        {"shape_color": {"shape": "circle", "color": "red"}, "background": {"background": "yellow"}},
    ),
    "star": (
        Scene(shape="star", color="yellow", pattern="striped", background="purple", radius=36.0, angle=0.1),
        {"color": {"color": "cyan"}, "object_background": {"shape": "heart", "color": "white", "background": "green"}},
    ),
}


def long_clip(name: str, frames: int) -> Clip:
    """One of `LOOKS` in motion: the object goes around an orbit and sways, the background drifts."""
    look, edits = LOOKS[name]
    scenes = tuple(
        look.edited(
            x=64 + 18 * math.cos(2 * math.pi * i / LAP),
            y=64 + 14 * math.sin(2 * math.pi * i / LAP),
            angle=look.angle + 0.4 * math.sin(2 * math.pi * i / (1.5 * LAP)),
            offset_x=(look.offset_x - i) % PERIOD,
            offset_y=(look.offset_y + 0.5 * i) % PERIOD,
        )
        for i in range(frames)
    )
    return Clip(name, "orbit", {}, scenes, tuple(
        Edit(kind, changes, tuple(scene.edited(**changes) for scene in scenes)) for kind, changes in edits.items()
    ))
