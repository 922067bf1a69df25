"""Motion in the world with things: what moves, moves as it says, and nothing else does."""

from __future__ import annotations

import math

import pytest
import torch

from miniature import clips, motion, things
from miniature.places import Camera
from miniature.scene import Actor, View, object_mask, render, shape_view

CAT = motion.still(View((Actor("cat", x=60, y=80, radius=28),), "beach"), 9)
TWO = motion.still(View((Actor("cat", x=30), Actor("ball", x=98)), "snow"), 9)
PATH = [(30, 80), (40, 30), (80, 30), (96, 80)]


def test_a_moving_view_begins_and_ends_where_it_says():
    view = shape_view("square", "blue", "dotted", "white", radius=34, angle=0.3)
    first, *_, last = clips.moving(view, 8, PATH, turn=1.2, drift=(-12, 6))
    assert first == view.with_actor(x=30, y=80)
    assert last == view.with_actor(x=96, y=80, angle=1.5).edited(camera=Camera(12, -6))


def test_an_edit_keeps_every_pose():
    clip = motion.hopping(motion.along(CAT, PATH), 2, 15)
    swapped = motion.edited(motion.edited(clip, actor=0, kind="turtle"), place="desert", look="sepia")
    for before, after in zip(clip, swapped):
        assert after.place == "desert" and after.look == "sepia" and after.camera == before.camera
        assert after.actors[0] == before.actors[0].edited(kind="turtle")
    areas = object_mask(swapped).sum(dim=(1, 2, 3))
    assert areas.tolist() == pytest.approx([things.AREA * 28**2] * len(clip), rel=0.03)


def test_hops_leave_the_ground_and_come_back():
    y = [view.actors[0].y for view in motion.hopping(CAT, 2, 20)]
    assert y[0] == y[4] == pytest.approx(y[8]) and min(y) == pytest.approx(y[0] - 20, abs=0.1)
    stretch = [view.actors[0].stretch for view in motion.hopping(CAT, 2, 20)]
    assert stretch[0] < 0.8 and max(stretch) > 1


def test_squashing_begins_and_ends_as_it_was():
    stretch = [view.actors[0].stretch for view in motion.squashing(CAT, 2, 0.4)]
    assert stretch[0] == 1 and stretch[-1] == pytest.approx(1) and min(stretch) == pytest.approx(0.6)


def test_growing_multiplies_the_area():
    first, *_, last = object_mask(motion.growing(CAT, 1.3)).sum(dim=(1, 2, 3)).tolist()
    assert last == pytest.approx(1.69 * first, rel=0.03)


def test_two_things_pass_each_other():
    clip = motion.passing(TWO, 68)
    assert [one.x for one in clip[-1].actors] == pytest.approx([98, 30])
    middle = object_mask(clip, 0).sum(dim=(1, 2, 3))
    assert middle.min() < 0.7 * middle[0]  # the nearer one hides the farther one on its way
    with pytest.raises(ValueError, match="the picture holds 1"):
        motion.passing(CAT, 68)


@pytest.mark.parametrize("from_left", [True, False])
def test_something_enters_the_picture(from_left):
    clip = motion.entering(TWO, actor=1, from_left=from_left)
    covered = object_mask(clip, 1).sum(dim=(1, 2, 3))
    assert covered[0] < 0.25 * covered[-1] and clip[-1].actors[1].x == pytest.approx(98)
    assert all(view.actors[0] == TWO[0].actors[0] for view in clip)


def test_the_camera_moves_the_place_alone():
    clip = motion.panning(CAT, 40)
    assert torch.equal(object_mask(clip)[0], object_mask(clip)[-1])
    assert not torch.allclose(render(clip)[0], render(clip)[-1], atol=0.1)


def test_zooming_enlarges_both():
    clip = motion.zooming(CAT, 1.25)
    areas = object_mask(clip).sum(dim=(1, 2, 3))
    assert areas[-1] / areas[0] == pytest.approx(1.25**2, rel=0.03)
    assert clip[-1].camera.zoom == pytest.approx(1.25)
    assert math.hypot(clip[-1].actors[0].x - 64, clip[-1].actors[0].y - 64) == pytest.approx(1.25 * math.hypot(4, 16))


def test_other_paths_are_refused():
    with pytest.raises(ValueError, match="4 control points"):
        motion.along(CAT, PATH[:2])
