"""The places of the miniature's world, drawn in layers that move at different speeds when the camera pans.

Coordinates are in pixels of a 128 x 128 picture. A layer of depth 1 moves with the pan, one of depth 0.2 is five times
as far away; zooming is about the picture's centre.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from .world import SIZE


@dataclass(frozen=True)
class Camera:
    """`pan_x`, `pan_y`: how far the camera has moved to the right and down, in pixels of the nearest layer;
    `zoom`: of everything except the sky."""

    pan_x: float = 0.0
    pan_y: float = 0.0
    zoom: float = 1.0


class Canvas:
    """A picture `3 128 128` on which layers are painted from far to near."""

    def __init__(self, camera: Camera):
        self.camera = camera
        self.picture = torch.empty(3, SIZE, SIZE)
        axis = torch.arange(SIZE) + 0.5 - SIZE / 2
        self.axis = axis / camera.zoom + SIZE / 2

    def at(self, depth: float) -> tuple[torch.Tensor, torch.Tensor]:
        """The layer's coordinates at each pixel: `1 w` to the right, `h 1` down."""
        x, y = self.axis + self.camera.pan_x * depth, self.axis + self.camera.pan_y * depth
        return x.view(1, -1), y.view(-1, 1)

    def fill(self, color: tuple[int, int, int]) -> None:
        """Paints everything."""
        self.picture.copy_(_rgb(color).expand_as(self.picture))

    def paint(self, color: tuple[int, int, int], distance: torch.Tensor) -> None:
        """Paints where the signed distance to the edge, in the layer's pixels, is negative; anti-aliased."""
        share = (0.5 - distance * self.camera.zoom).clamp(0, 1)
        self.picture.lerp_(_rgb(color).expand_as(self.picture), share.expand(3, SIZE, SIZE))


def draw_place(place: str, camera: Camera) -> torch.Tensor:
    """The empty place, `3 128 128` in 0..1. Raises ValueError for an unknown place."""
    if place not in PLACES:
        raise ValueError(f"unknown place {place!r}: use one of {', '.join(PLACES)}")
    canvas = Canvas(camera)
    PLACES[place](canvas)
    return canvas.picture


def _rgb(color: tuple[int, int, int]) -> torch.Tensor:
    return torch.tensor(color).view(3, 1, 1) / 255


def _cell(x: torch.Tensor, period: float) -> torch.Tensor:
    """Distance along x to the middle of the nearest of many equal cells, signed."""
    return torch.remainder(x, period) - period / 2


def _wave(x: torch.Tensor, period: float, height: float) -> torch.Tensor:
    return height * torch.sin(x * (2 * math.pi / period))


def _zigzag(x: torch.Tensor, period: float, height: float) -> torch.Tensor:
    """Peaks of the given height at the cells' middles."""
    return height * (1 - _cell(x, period).abs() * (2 / period))


def _disc(x: torch.Tensor, y: torch.Tensor, radius: float) -> torch.Tensor:
    return torch.hypot(x, y) - radius


def _clouds(canvas: Canvas, color: tuple[int, int, int]) -> None:
    x, y = canvas.at(0.25)
    u = _cell(x + 20, 92.0)
    puffs = [_disc(u + dx, y - 22 - dy, r) for dx, dy, r in ((-13, 3, 7), (0, 0, 10), (13, 3, 7))]
    canvas.paint(color, torch.minimum(torch.minimum(*puffs[:2]), puffs[2]))


def _meadow(canvas: Canvas) -> None:
    canvas.fill((150, 212, 245))
    _clouds(canvas, (250, 252, 255))
    x, y = canvas.at(0.5)
    canvas.paint((140, 200, 95), 66 + _wave(x, 128, 7) - y)
    x, y = canvas.at(1.0)
    canvas.paint((95, 170, 62), 84 + _wave(x, 200, 3) - y)
    u, v = _cell(x, 36.0), _cell(y + _wave(x - _cell(x, 36.0), 97, 6) - 96, 30.0)
    canvas.paint((250, 240, 150), torch.maximum(_disc(u, v, 3.4), 91 + 0 * x - y))


def _beach(canvas: Canvas) -> None:
    canvas.fill((170, 225, 250))
    x, y = canvas.at(0.1)
    canvas.paint((255, 235, 120), _disc(x - 100, y - 22, 13))
    x, y = canvas.at(0.4)
    canvas.paint((45, 135, 200), 50 - y + 0 * x)
    canvas.paint((150, 210, 235), (_cell(y + _wave(x, 64, 2), 12.0).abs() - 1.3).maximum(54 - y))
    x, y = canvas.at(1.0)
    canvas.paint((250, 252, 250), 78 + _wave(x, 90, 4) - y)
    canvas.paint((242, 218, 155), 82 + _wave(x, 90, 4) - y)


def _sea(canvas: Canvas) -> None:
    canvas.fill((205, 232, 245))
    _clouds(canvas, (252, 253, 255))
    for depth, top, period, height, color in (
        (0.35, 48, 46, 2.5, (95, 175, 215)),
        (0.6, 70, 60, 4, (50, 135, 190)),
        (1.0, 96, 76, 5, (25, 95, 150)),
    ):
        x, y = canvas.at(depth)
        canvas.paint(color, top + _wave(x, period, height) - y)


def _night_sky(canvas: Canvas) -> None:
    canvas.fill((18, 22, 66))
    x, y = canvas.at(0.15)
    u, v = _cell(x, 34.0), _cell(y + 0.5 * (x - _cell(x, 34.0)), 29.0)
    canvas.paint((250, 245, 200), _disc(u, v, 1.9))
    x, y = canvas.at(0.1)
    canvas.paint((250, 240, 180), torch.maximum(_disc(x - 104, y - 26, 15), -_disc(x - 97, y - 23, 13)))
    x, y = canvas.at(0.8)
    canvas.paint((35, 45, 60), 104 + _wave(x, 120, 6) - y)


def _snow(canvas: Canvas) -> None:
    canvas.fill((186, 208, 232))
    x, y = canvas.at(0.3)
    canvas.paint((140, 160, 190), 74 - _zigzag(x, 86, 44) - y)
    canvas.paint((245, 248, 252), torch.maximum(74 - _zigzag(x, 86, 44) - y, y - 46 - _wave(x, 17, 2)))
    x, y = canvas.at(0.6)
    canvas.paint((45, 105, 85), (_cell(x, 44).abs() * 2 - (y - 54)).maximum(y - 84) * 0.45)
    x, y = canvas.at(1.0)
    canvas.paint((246, 248, 252), 80 + _wave(x, 150, 4) - y)


def _desert(canvas: Canvas) -> None:
    canvas.fill((252, 222, 165))
    x, y = canvas.at(0.1)
    canvas.paint((250, 130, 60), _disc(x - 30, y - 34, 17))
    x, y = canvas.at(0.5)
    canvas.paint((222, 150, 82), 70 - _zigzag(x, 120, 18) - y)
    x, y = canvas.at(1.0)
    canvas.paint((190, 112, 58), 90 + _wave(x, 140, 6) - y)


def _city_street(canvas: Canvas) -> None:
    canvas.fill((200, 212, 224))
    x, y = canvas.at(0.35)
    number = torch.floor(x / 32)
    canvas.paint((150, 158, 176), (34 + 14 * torch.remainder(number * 0.618, 1)) - y)
    x, y = canvas.at(0.7)
    number, u = torch.floor(x / 46), _cell(x, 46.0)
    top = 40 + 22 * torch.remainder(number * 0.618 + 0.3, 1)
    wall = torch.maximum(u.abs() - 19, top - y)
    canvas.paint((172, 96, 82), wall)
    windows = torch.maximum(_cell(u, 38 / 3).abs(), _cell(y - top - 3, 14.0).abs()) - 3.2
    canvas.paint((250, 225, 130), torch.maximum(windows, top + 3 - y).maximum(u.abs() - 17))
    x, y = canvas.at(1.0)
    canvas.paint((185, 185, 180), 86 - y + 0 * x)
    canvas.paint((82, 84, 92), 94 - y + 0 * x)
    canvas.paint((240, 240, 235), torch.maximum(_cell(x, 40.0).abs() - 11, (y - 110).abs() - 2.2))


PLACES: dict[str, Callable[[Canvas], None]] = {
    "meadow": _meadow,
    "beach": _beach,
    "sea": _sea,
    "night sky": _night_sky,
    "snow": _snow,
    "desert": _desert,
    "city street": _city_street,
}
WHERE = {  # the places in words
    "meadow": "in a meadow",
    "beach": "on a beach",
    "sea": "in the sea",
    "night sky": "in the night sky",
    "snow": "in the snow",
    "desert": "in a desert",
    "city street": "in a city street",
}
