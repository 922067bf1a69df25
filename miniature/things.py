"""The things of the miniature's world: OpenMoji's pictures as sprites, some of them in colours.

A sprite is drawn once from OpenMoji's SVG file (`sprites.py`) and then placed freely: size, mirroring, tilt, squash.
All things of one radius cover the same area, and a thing's centre is its centre of mass, so one thing can replace
another. OpenMoji's pictures are under CC BY-SA 4.0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache

import torch
import torch.nn.functional as F

from .world import COLORS

AREA = 1.9  # a thing's area in units of its squared radius; a circle of that radius has 2.4
FINE = 2  # samples per pixel and axis


@dataclass(frozen=True)
class Thing:
    """`code`: OpenMoji's file; `fills`: the file's colours that are replaced, each with its brightness relative to the
    first; `natural`: the colour that replaces the first one in the plain thing, as a hexadecimal number; `colors`:
    whether prompts may name a colour."""

    code: str
    fills: dict[str, float] = field(default_factory=dict)
    natural: str = ""
    colors: bool = False


RED = {"ea5a47": 1.0, "d22f27": 0.8}
BLUE = {"92d3f5": 1.0, "61b2e4": 0.8}

# The most distinct first: a miniature that has learned only some has learned the first of them.
THINGS: dict[str, Thing] = {
    "cat": Thing("1F408"),
    "dog": Thing("1F415", {"f4aa41": 1.0, "e27022": 0.75}, natural="8a6a4a"),
    "rabbit": Thing("1F407"),
    "elephant": Thing("1F418"),
    "penguin": Thing("1F427"),
    "turtle": Thing("1F422"),
    "pig": Thing("1F416"),
    "duck": Thing("1F986"),
    "octopus": Thing("1F419"),
    "snail": Thing("1F40C"),
    "dinosaur": Thing("1F995", {"a57939": 1.0}, natural="7fb04a"),
    "fish": Thing("1F41F", BLUE, colors=True),
    "butterfly": Thing("1F98B", BLUE, colors=True),
    "car": Thing("1F697", RED, colors=True),
    "balloon": Thing("1F388", RED, colors=True),
    "umbrella": Thing("2602", {"b399c8": 1.0, "8967aa": 0.75}, colors=True),
    "mushroom": Thing("1F344", RED, colors=True),
    "rocket": Thing("1F680"),
    "airplane": Thing("2708"),
    "tractor": Thing("1F69C"),
    "house": Thing("1F3E0"),
    "apple": Thing("1F34E"),
    "cactus": Thing("1F335"),
    "ball": Thing("26BD"),
    "fox": Thing("1F98A"),
    "horse": Thing("1F40E"),
    "whale": Thing("1F433"),
    "crown": Thing("1F451"),
    "sunflower": Thing("1F33B"),
    "banana": Thing("1F34C"),
    "train": Thing("1F682"),
    "teddy bear": Thing("1F9F8"),
    "tree": Thing("1F333"),
    "bee": Thing("1F41D"),
    "bus": Thing("1F68C", {"ea5a47": 1.0}, colors=True),
    "bird": Thing("1F426"),
    "pizza": Thing("1F355"),
    "snowman": Thing("26C4"),
    "owl": Thing("1F989"),
    "crab": Thing("1F980"),
}
NAMES = tuple(THINGS)
LEARNED = NAMES[:24]  # those the miniature is trained on
THING_COLORS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")


@dataclass(frozen=True)
class Sprite:
    """`levels`: premultiplied colour and coverage `4 h w`, each half as large as the one before; `center`: the centre
    of mass in pixels of the first; `scale`: pixels of the first per unit of radius; `reach`: the distance from the
    centre to the farthest covered pixel in units of the radius."""

    levels: tuple[torch.Tensor, ...]
    center: tuple[float, float]
    scale: float
    reach: float

    @classmethod
    def of(cls, picture: torch.Tensor) -> Sprite:
        """From premultiplied colour and coverage `4 h w` in 0..1, `h` and `w` multiples of 4."""
        alpha = picture[3]
        area = alpha.sum().item()
        y, x = (torch.arange(n) + 0.5 for n in alpha.shape)
        center = ((alpha.sum(0) * x).sum().item() / area, (alpha.sum(1) * y).sum().item() / area)
        scale = math.sqrt(area / AREA)
        distance = torch.hypot(x.view(1, -1) - center[0], y.view(-1, 1) - center[1])
        levels = [picture]
        for _ in range(2):
            levels.append(F.avg_pool2d(levels[-1][None], 2)[0])
        return cls(tuple(levels), center, scale, distance[alpha > 0.01].max().item() / scale)


@cache
def sprite(name: str, color: str | None = None) -> Sprite:
    """The thing's sprite. Raises ValueError for an unknown thing or a colour it does not come in."""
    from .sprites import load

    if name not in THINGS:
        raise ValueError(f"unknown thing {name!r}: use one of {', '.join(THINGS)}")
    if color is not None and not THINGS[name].colors:
        raise ValueError(f"a {name} comes in its own colour only, not in {color}")
    if color is not None and color not in THING_COLORS:
        raise ValueError(f"a {name} cannot be {color}: use one of {', '.join(THING_COLORS)}")
    return Sprite.of(torch.from_numpy(load()[key(name, color)]).float() / 255)


def key(name: str, color: str | None) -> str:
    """The sprite's name in the file of sprites."""
    return f"{color} {name}" if color else name


def fills(name: str, color: str | None) -> dict[str, str]:
    """The SVG file's colours and their replacements, hexadecimal."""
    thing = THINGS[name]
    if color is None and not thing.natural:
        return {}
    base = COLORS[color] if color else bytes.fromhex(thing.natural)
    return {old: bytes(round(factor * c) for c in base).hex() for old, factor in thing.fills.items()}


def draw(
    picture: torch.Tensor,
    name: str,
    color: str | None,
    x: float,
    y: float,
    radius: float,
    angle: float = 0.0,
    mirrored: bool = False,
    stretch: float = 1.0,
) -> None:
    """Draws the thing over the picture `c h w` in place, `c` 3 (colours) or 1 (coverage alone), anti-aliased.

    `x`, `y`: its centre of mass in pixels; `angle` in radians, clockwise; `stretch`: how much taller it is than
    normal, at equal area.
    """
    shape = sprite(name, color)
    height, width = picture.shape[-2:]
    reach = shape.reach * radius * max(stretch, 1 / stretch) + 1
    left, right = max(math.floor(x - reach), 0), min(math.ceil(x + reach), width)
    top, bottom = max(math.floor(y - reach), 0), min(math.ceil(y + reach), height)
    if left >= right or top >= bottom:
        return
    dx = (torch.arange((right - left) * FINE) + 0.5) / FINE + left - x
    dy = (torch.arange((bottom - top) * FINE) + 0.5) / FINE + top - y
    dx, dy = dx.view(1, -1), dy.view(-1, 1)
    per_pixel = shape.scale / radius
    wide, high = math.sqrt(1 / stretch), math.sqrt(stretch)
    cos, sin = math.cos(angle), math.sin(angle)
    u = (cos * dx + sin * dy) * (per_pixel / wide) * (-1 if mirrored else 1) + shape.center[0]
    v = (cos * dy - sin * dx) * (per_pixel / high) + shape.center[1]
    h, w = shape.levels[0].shape[-2:]
    grid = torch.stack([2 * u / w - 1, 2 * v / h - 1], dim=-1)
    level = min(max(round(math.log2(per_pixel / FINE)), 0), len(shape.levels) - 1)
    layer = F.grid_sample(shape.levels[level][None], grid[None], mode="bilinear", align_corners=False)
    layer = F.avg_pool2d(layer, FINE)[0]
    region = picture[:, top:bottom, left:right]
    ink = layer[:3] if len(picture) == 3 else layer[3:]
    region.mul_(1 - layer[3:]).add_(ink)
