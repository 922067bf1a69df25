"""The miniature model's world: one coloured shape on a patterned background, rendered exactly.

Because every picture and every clip is rendered from a `Scene`, the right answer is always known: a classifier can be
trained on renders alone, and the correct result of an edit is the same scene with other attributes.
Coordinates and lengths are in pixels of a 128 x 128 picture; angles in radians; colours in 0..1.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

import torch

SIZE = 128  # pixels
PERIOD = 32.0  # pixels between two stripes, dots or checks of the same kind

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (215, 35, 40),
    "orange": (245, 140, 25),
    "yellow": (245, 225, 60),
    "green": (35, 150, 65),
    "cyan": (70, 210, 220),
    "blue": (40, 75, 210),
    "purple": (130, 45, 170),
    "pink": (250, 150, 200),
    "white": (240, 240, 240),
    "black": (20, 20, 20),
}
SHAPES = ("circle", "square", "triangle", "star", "heart", "ring")
PATTERNS = ("plain", "striped", "checkered", "dotted")

PHRASINGS = (
    "a {object} on a {background} background",
    "a {object} on a {background} background",
    "a {object}, {background} background",
    "{object}, {background} background",
    "a {object} in front of a {background} background",
    "a {object} moving over a {background} background",
    "a video of a {object} on a {background} background",
    "a picture of a {object} with a {background} background",
)


@dataclass(frozen=True)
class Scene:
    """What one picture shows. `x`, `y`: the object's centre; `radius`: of its circumscribed circle;
    `offset_x`, `offset_y`: how far the background pattern is shifted."""

    shape: str
    color: str
    pattern: str
    background: str
    x: float = 64.0
    y: float = 64.0
    radius: float = 32.0
    angle: float = 0.0
    offset_x: float = 0.0
    offset_y: float = 0.0

    def edited(self, **attributes) -> Scene:
        """The same placement with other attributes."""
        return replace(self, **attributes)


def random_scene(rng: random.Random) -> Scene:
    """A scene with every attribute and placement drawn uniformly; the object never has the background's colour."""
    color, background = rng.sample(list(COLORS), 2)
    return Scene(
        shape=rng.choice(SHAPES),
        color=color,
        pattern=rng.choice(PATTERNS),
        background=background,
        x=rng.uniform(38, 90),
        y=rng.uniform(38, 90),
        radius=rng.uniform(24, 40),
        angle=rng.uniform(-math.pi, math.pi),
        offset_x=rng.uniform(0, PERIOD),
        offset_y=rng.uniform(0, PERIOD),
    )


def prompt(scene: Scene, phrasing: str = PHRASINGS[0]) -> str:
    """The scene in words, e.g. `a red circle on a striped blue background`. Plain backgrounds carry no pattern word."""
    background = scene.background if scene.pattern == "plain" else f"{scene.pattern} {scene.background}"
    text = phrasing.format(object=f"{scene.color} {scene.shape}", background=background)
    return text.replace("a orange", "an orange")


def random_prompt(scene: Scene, rng: random.Random) -> str:
    """The scene in one of several phrasings."""
    return prompt(scene, rng.choice(PHRASINGS))


def render(scenes: list[Scene], window: torch.Tensor | None = None, size: int = SIZE) -> torch.Tensor:
    """Pictures of the scenes, `b 3 size size` in 0..1, anti-aliased.

    `window` (`b 2`, pixels): the upper left corner of each picture, to render crops only; default 0, 0.
    """
    value = lambda name: torch.tensor([getattr(scene, name) for scene in scenes]).view(-1, 1, 1)
    corner = torch.zeros(len(scenes), 2) if window is None else window
    axis = torch.arange(size) + 0.5
    px = axis.view(1, 1, -1) + corner[:, 0].view(-1, 1, 1)
    py = axis.view(1, -1, 1) + corner[:, 1].view(-1, 1, 1)

    dx, dy = px - value("x"), py - value("y")
    cos, sin, radius = value("angle").cos(), value("angle").sin(), value("radius")
    u, v = (cos * dx + sin * dy) / radius, (cos * dy - sin * dx) / radius
    gx, gy = px + value("offset_x"), py + value("offset_y")

    picture = torch.empty(len(scenes), 3, size, size)
    for i, scene in enumerate(scenes):
        inside = _coverage(_shape_distance(scene.shape, u[i], v[i]) * scene.radius)
        base = ground(scene.pattern, scene.background, gx[i], gy[i])
        picture[i] = base + (rgb(scene.color) - base) * inside
    return picture


def ground(pattern: str, background: str, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The patterned background alone at the pattern's own coordinates `x` (`1 w`) and `y` (`h 1`), `3 h w`."""
    figure = _coverage(_pattern_distance(pattern, x, y))
    base, shade = rgb(background), _shade(background)
    return base + (shade - base) * figure


def coverage(shape: str, x: float, y: float, radius: float, angle: float, stretch: float = 1.0) -> torch.Tensor:
    """The share of each pixel that the shape covers, `1 128 128` in 0..1; `stretch`: how much taller than normal it
    is, at equal area."""
    axis = torch.arange(SIZE) + 0.5
    dx, dy = axis.view(1, -1) - x, axis.view(-1, 1) - y
    cos, sin = math.cos(angle), math.sin(angle)
    u = (cos * dx + sin * dy) / radius * math.sqrt(stretch)
    v = (cos * dy - sin * dx) / radius / math.sqrt(stretch)
    return _coverage(_shape_distance(shape, u, v) * radius)[None]


def object_mask(scenes: list[Scene]) -> torch.Tensor:
    """The share of each pixel the object covers, `b 1 128 128` in 0..1."""
    black = [scene.edited(color="white", background="black", pattern="plain") for scene in scenes]
    low, high = COLORS["black"][0] / 255, COLORS["white"][0] / 255
    return (render(black)[:, :1] - low) / (high - low)


def _coverage(distance: torch.Tensor) -> torch.Tensor:
    """How much of a pixel lies inside a shape whose edge is `distance` pixels away (negative inside)."""
    return (0.5 - distance).clamp(0, 1)


def rgb(name: str) -> torch.Tensor:
    """The colour of that name, `3 1 1` in 0..1."""
    return torch.tensor(COLORS[name]).view(3, 1, 1) / 255


def _shade(name: str) -> torch.Tensor:
    """The second tone of a patterned background: darker, except for black."""
    return torch.full((3, 1, 1), 0.36) if name == "black" else rgb(name) * 0.62


def _shape_distance(shape: str, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Signed distance to the outline in units of the radius; `u` points right, `v` down. Stars and hearts follow
    the well-known exact distance functions of those figures."""
    if shape == "circle":
        return torch.hypot(u, v) - 0.88
    if shape == "ring":
        return (torch.hypot(u, v) - 0.68).abs() - 0.25
    if shape == "square":
        return torch.maximum(u.abs(), v.abs()) - 0.76
    if shape == "triangle":
        return torch.maximum(v, math.sqrt(0.75) * u.abs() - 0.5 * v) - 0.5
    if shape == "star":
        return _star_distance(u, v, inner=0.45)
    if shape == "heart":
        return _heart_distance(u / 1.5, 0.58 - v / 1.5) * 1.5
    raise ValueError(f"unknown shape {shape!r}: use one of {', '.join(SHAPES)}")


def _star_distance(u: torch.Tensor, v: torch.Tensor, inner: float) -> torch.Tensor:
    """A five-pointed star of radius 1 whose inner corners lie at `inner`, one point up: fold into one half of one
    point, then measure to that point's edge."""
    sector = 2 * math.pi / 5
    angle = torch.atan2(u, -v)
    folded = (angle - sector * torch.round(angle / sector)).abs()
    length = torch.hypot(u, v)
    x, y = length * folded.sin(), length * folded.cos()
    ax, ay = inner * math.sin(sector / 2), inner * math.cos(sector / 2)
    ex, ey = -ax, 1 - ay  # the edge from the inner corner to the tip at (0, 1)
    along = (((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey)).clamp(0, 1)
    distance = torch.hypot(x - ax - along * ex, y - ay - along * ey)
    outside = ex * (y - ay) - ey * (x - ax) < 0
    return torch.where(outside, distance, -distance)


def _heart_distance(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """A heart with its tip at the origin, `y` up, about 1.1 high."""
    x = x.abs()
    lobe = torch.hypot(x - 0.25, y - 0.75) - math.sqrt(2) / 4
    half = 0.5 * (x + y).clamp(min=0)
    body = torch.minimum(x.square() + (y - 1).square(), (x - half).square() + (y - half).square()).sqrt()
    return torch.where(x + y > 1, lobe, body * torch.sign(x - y))


def _pattern_distance(pattern: str, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Signed distance in pixels to the edge of the pattern's second tone."""
    if pattern == "plain":
        return torch.full_like(x + y, 1.0)
    cell_x = torch.remainder(x, PERIOD) - PERIOD / 2
    cell_y = torch.remainder(y, PERIOD) - PERIOD / 2
    if pattern == "striped":
        return cell_x.abs() - PERIOD / 4 + 0 * y
    if pattern == "dotted":
        return torch.hypot(cell_x, cell_y) - PERIOD / 3.6
    if pattern == "checkered":
        a, b = cell_x.abs() - PERIOD / 4, cell_y.abs() - PERIOD / 4
        return torch.where(a * b > 0, -1.0, 1.0) * torch.minimum(a.abs(), b.abs())
    raise ValueError(f"unknown pattern {pattern!r}: use one of {', '.join(PATTERNS)}")
