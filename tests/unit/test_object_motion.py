"""The object's motion, estimated from pictures, against the motion by which the clip was rendered."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from ei2.object_motion import object_motion
from miniature import motion
from miniature.clips import square_clip
from miniature.scene import Actor, View, object_mask, render

CLIP = square_clip()
SQUARE = View((Actor("square", "blue", x=48, y=60, radius=30, angle=0.3),), "dotted", "white")


def pose(actor: Actor) -> torch.Tensor:
    """The map of the actor's own coordinates, in radii, to places of pixels."""
    cos, sin = math.cos(actor.angle), math.sin(actor.angle)
    across, down = actor.radius / math.sqrt(actor.stretch), actor.radius * math.sqrt(actor.stretch)
    middle = [actor.x - 0.5, actor.y - 0.5]
    return torch.tensor([[cos * across, -sin * down, middle[0]], [sin * across, cos * down, middle[1]], [0, 0, 1.0]])


def errors(views: list[View], matrices: torch.Tensor, reference: int) -> torch.Tensor:
    """How far the estimate takes points on the object's outline from their true places, in pixels, mean per frame."""
    turns = torch.linspace(0, 2 * math.pi, 9)[:-1]
    points = torch.stack([turns.cos(), turns.sin(), torch.ones(8)])
    to = pose(views[reference].actors[0]) @ points
    found = [matrix @ pose(view.actors[0]) @ points for matrix, view in zip(matrices, views)]
    return torch.stack([(one - to)[:2].norm(dim=0).mean() for one in found])


def coarse(views: list[View], cells: int = 16) -> torch.Tensor:
    """The object's masks, known to a few cells only."""
    masks = object_mask(views)
    return F.interpolate(F.adaptive_max_pool2d(masks, cells), masks.shape[2:])


@pytest.mark.parametrize(
    ("views", "most"),
    [
        (CLIP, 1.0),
        (motion.turning(motion.still(SQUARE, 8), 1.5), 1.0),
        (motion.growing(motion.still(SQUARE, 8), 1.4), 1.0),
        (motion.squashing(motion.still(SQUARE, 8), 1, 0.3), 1.0),
        (motion.panning(motion.along(motion.still(SQUARE, 8), [(40, 50), (50, 70), (70, 70), (84, 60)]), 20, 8), 1.0),
    ],
    ids=["quickstart", "turn", "growth", "squash", "camera"],
)
def test_the_motion_of_a_rendered_object_is_found(views, most):
    reference = len(views) // 2
    found = object_motion(render(views), coarse(views), reference)
    assert torch.equal(found[reference], torch.eye(3))
    assert errors(views, found, reference).max() < most
    unmoved = torch.eye(3).expand(len(views), 3, 3)
    assert errors(views, unmoved, reference).max() > 4 * most  # there is a motion to find


def test_a_disc_does_not_turn_with_what_is_behind_it():
    disc = View((Actor("circle", "blue", x=60, y=64, radius=28),), "checkered", "cyan")
    views = motion.panning(motion.still(disc, 8), 40, 4)
    found = object_motion(render(views), coarse(views), 0)
    assert torch.atan2(found[:, 1, 0], found[:, 0, 0]).abs().max() < math.radians(8)
    assert errors(views, found, 0).max() < 3


def test_wide_pictures_are_followed_too():
    views = CLIP[:5]
    frames, masks = (F.pad(x, (40, 33, 0, 0), mode="replicate") for x in (render(views), coarse(views)))
    found = object_motion(frames, masks, 2)
    shift = torch.tensor([[1.0, 0, -40], [0, 1, 0], [0, 0, 1]])
    assert errors(views, shift @ found @ shift.inverse(), 2).max() < 1


def test_large_pictures_are_measured_in_their_own_pixels():
    views = CLIP[:4]
    frames, masks = render(views), coarse(views)
    small = object_motion(frames, masks, 0)
    large = object_motion(*(F.interpolate(x, scale_factor=4, mode="bilinear") for x in (frames, masks)), 0)
    points = torch.tensor([[40.0, 50.0, 1.0], [70.0, 30.0, 1.0]]).T
    there = (large @ torch.tensor([[4, 0, 1.5], [0, 4, 1.5], [0, 0, 1.0]]) @ points)[:, :2]
    assert torch.allclose((there - 1.5) / 4, (small @ points)[:, :2], atol=1.0)


def test_progress_is_told_and_one_frame_needs_none():
    views, told = CLIP[:3], []
    object_motion(render(views), coarse(views), 1, lambda: told.append(1))
    assert len(told) == 2
    assert torch.equal(object_motion(render(views[:1]), coarse(views[:1]), 0), torch.eye(3).unsqueeze(0))


def test_nothing_to_see_moves_nowhere():
    found = object_motion(torch.full((3, 3, 64, 64), 0.5), torch.zeros(3, 1, 64, 64), 1)
    assert torch.allclose(found, torch.eye(3).expand(3, 3, 3), atol=1e-4)
