"""The colours, shapes and patterned backgrounds of the miniature's world, rendered exactly; `scene.py` puts pictures
together from them. Coordinates and lengths are in pixels of a 128 x 128 picture; angles in radians; colours in 0..1.
"""

from __future__ import annotations

import math

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
