"""Agreement of frames: 1 for the correct result, low for an object that turns, grows or changes from frame to frame."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from benchmarks.editbench.agreement import agreement, centroid_error, regions, visible
from benchmarks.editbench.clips import clips_of, motions_first
from miniature import motion
from miniature.scene import Actor, View, object_mask, render
from miniature.world import SIZE

CLIPS = motions_first(clips_of("dev"))[:11]  # every motion of things, and two shapes
CAT = View((Actor("cat", x=50, y=70, radius=32, angle=0.1),), "meadow")
MOVING = motion.along(motion.still(CAT, 6), [(50, 70), (60, 60), (70, 70), (80, 75)])


def every_second(views, **attributes) -> list[View]:
    """The views with attributes of the object changed in every second frame."""
    return [view.with_actor(**attributes) if i % 2 else view for i, view in enumerate(views)]


@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.name)
def test_it_is_1_for_the_correct_result_and_nearly_for_an_imperfect_picture_of_it(clip):
    views = next((edit.views for edit in clip.edits if edit.one_answer), clip.views)
    truth, generator = render(views), torch.Generator().manual_seed(0)
    assert agreement(truth, views) == 1
    soft = F.avg_pool2d(truth, 3, stride=1, padding=1, count_include_pad=False)
    noisy = soft + 0.03 * torch.randn(soft.shape, generator=generator)
    assert agreement(noisy.clamp(0, 1), views) > 0.93
    assert centroid_error(truth, views, 64.0) == 0


@pytest.mark.parametrize(
    "fault, highest",
    [
        ({"angle": CAT.actors[0].angle + math.radians(20)}, 0.75),
        ({"radius": 1.15 * CAT.actors[0].radius}, 0.85),
        ({"mirrored": True}, 0.75),
        ({"kind": "house"}, 0.6),
    ],
    ids=["turns", "grows", "mirrored", "changes"],
)
def test_it_is_low_for_a_form_that_is_not_the_same_in_each_frame(fault, highest):
    assert agreement(render(every_second(MOVING, **fault)), MOVING) < highest


def test_a_form_that_is_wrong_but_the_same_in_each_frame_agrees():
    """It is a score of agreement alone; whether the form is the right one, success and PSNR say."""
    for other in ({"kind": "elephant"}, {"angle": 0.4}, {"radius": 26.0}):
        wrong = [view.with_actor(**other) for view in MOVING]
        assert agreement(render(wrong), MOVING) > 0.95


def test_an_object_that_goes_missing_does_not_agree():
    pictures = render(MOVING)
    pictures[3] = render([MOVING[3].edited(actors=())])[0]
    assert agreement(pictures, MOVING) == pytest.approx(3 / 5, abs=0.02)
    assert agreement(render([view.edited(actors=()) for view in MOVING]), MOVING) == 0


@pytest.mark.parametrize("wrong", [{"place": "snow"}, {"look": "sepia"}], ids=["place", "look"])
def test_a_wrong_background_is_not_an_object(wrong):
    """Where everything near the object differs, nothing is found in it."""
    pictures = render([view.edited(**wrong) for view in MOVING])
    assert agreement(pictures, MOVING) < 0.5
    assert centroid_error(pictures, MOVING, 64.0) > 5


def test_frames_that_hide_the_object_are_left_out():
    passing = motion.passing(
        motion.still(View((Actor("cat", x=40, radius=25), Actor("house", x=88, radius=25)), "snow"), 9), 48
    )
    shown = visible(passing)
    assert shown[0] and shown[-1] and not shown[4]
    hidden = render(passing)
    hidden[4] = render([passing[4].edited(actors=passing[4].actors[1:])])[0]
    assert agreement(hidden, passing) == 1
    outside = motion.entering(motion.still(CAT, 8))
    assert not visible(outside)[0] and visible(outside)[-1]


def test_without_two_frames_that_show_the_object_there_is_no_score():
    away = [view.with_actor(x=-100.0) for view in MOVING]
    assert math.isnan(agreement(render(away), away))


def test_the_region_is_the_objects():
    found, true = regions(render(MOVING), MOVING), object_mask(MOVING)
    overlap = torch.minimum(found, true).sum() / torch.maximum(found, true).sum()
    assert overlap > 0.85 and set(found.unique().tolist()) == {0, 1}


def test_spots_far_from_the_object_do_not_count():
    spotted = render(MOVING)
    spotted[:, :, 100:124, 4:28] = 0.0
    assert torch.equal(regions(spotted, MOVING), regions(render(MOVING), MOVING))


@pytest.mark.parametrize("kind, color", [("cat", None), ("circle", "red"), ("star", "blue")])
def test_centroid_error_of_a_displacement(kind, color):
    views = [View((Actor(kind, color, radius=30.0),), "beach")] * 2
    moved = [view.with_actor(x=69.0, y=61.0) for view in views]
    assert centroid_error(render(moved), views, 64.0) == pytest.approx(math.hypot(5, 3), abs=0.3)


def test_a_missing_object_is_lost():
    empty = render([view.edited(actors=()) for view in MOVING])
    assert centroid_error(empty, MOVING, SIZE / 2) == SIZE / 2
    half = torch.cat([render(MOVING)[:3], empty[3:]])
    assert centroid_error(half, MOVING, SIZE / 2) == SIZE / 4
