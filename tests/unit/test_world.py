"""Shapes and patterned backgrounds: what a view says is what its picture shows."""

from __future__ import annotations

import math
import random

import pytest
import torch

from miniature.places import Camera
from miniature.scene import object_mask, random_shape_view, render, shape_view
from miniature.world import COLORS, PATTERNS, PERIOD, SHAPES, SIZE

# areas in units of the squared radius, by geometry
AREAS = {
    "circle": math.pi * 0.88**2,
    "ring": math.pi * (0.93**2 - 0.43**2),
    "square": (2 * 0.76) ** 2,
    "triangle": 3 * math.sqrt(3) / 4,
    "star": 5 * 0.45 * math.sin(math.pi / 5),
}


def views(count: int, seed: int = 0) -> list:
    rng = random.Random(seed)
    return [random_shape_view(rng) for _ in range(count)]


@pytest.mark.parametrize("shape", AREAS)
@pytest.mark.parametrize("angle", [0.0, 0.7])
def test_area_of_each_shape(shape, angle):
    view = shape_view(shape, "red", "plain", "blue", x=61.3, y=66.8, radius=40, angle=angle)
    assert object_mask([view]).sum().item() == pytest.approx(AREAS[shape] * 40**2, rel=0.02)


@pytest.mark.parametrize("shape", SHAPES)
def test_shape_lies_within_its_circle_and_follows_its_centre(shape):
    view = shape_view(shape, "red", "plain", "blue", x=50, y=60, radius=32)
    axis = torch.arange(SIZE) + 0.5
    distance = torch.hypot(axis.view(1, -1) - 50, axis.view(-1, 1) - 60)
    mask = object_mask([view])[0, 0]
    assert mask[distance > 1.15 * 32].max() == 0  # a square's corners reach a little beyond
    moved = object_mask([view.with_actor(x=70, y=70)])[0, 0]
    assert torch.allclose(moved[10:, 20:], mask[:-10, :-20], atol=1e-4)


def test_shapes_are_told_apart_by_their_masks():
    masks = object_mask([shape_view(shape, "red", "plain", "blue", radius=40) for shape in SHAPES])
    for i in range(len(SHAPES)):
        for j in range(i):
            assert (masks[i] - masks[j]).abs().sum() > 400, (SHAPES[i], SHAPES[j])


def test_mask_range_and_share_of_covered_pixels():
    masks = object_mask(views(50))
    assert masks.shape == (50, 1, SIZE, SIZE)
    assert masks.min() >= -1e-5 and masks.max() <= 1 + 1e-5
    share = (masks > 0.5).float().mean(dim=(1, 2, 3))
    assert share.min() > 0.02 and share.max() < 0.3


def test_object_and_background_have_the_named_colors():
    for view, picture, mask in zip(views(60), render(views(60)), object_mask(views(60))):
        color = torch.tensor(COLORS[view.actors[0].color]) / 255
        ground = torch.tensor(COLORS[view.background]) / 255
        inside, outside = mask[0] > 0.999, mask[0] < 0.001
        assert torch.allclose(picture[:, inside].mean(dim=1), color, atol=1e-3), view
        named = (picture[:, outside] - ground.view(3, 1)).abs().amax(dim=0) < 1e-3
        share = named.float().mean().item()
        assert share == 1 if view.place == "plain" else 0.3 < share < 0.9, view


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_repeat_and_shift(pattern):
    view = shape_view("circle", "red", pattern, "green")
    cameras = Camera(5, 9), Camera(5 + PERIOD, 9 - PERIOD), Camera(5 + PERIOD / 2, 9)
    same, period, half = render([view.edited(camera=camera) for camera in cameras])
    assert torch.allclose(same, period, atol=1e-4)
    assert torch.equal(same, half) == (pattern == "plain")


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="unknown thing 'cube'"):
        render([shape_view("cube", "red", "plain", "blue")])
    with pytest.raises(ValueError, match="unknown place 'wavy'"):
        render([shape_view("star", "red", "wavy", "blue")])
