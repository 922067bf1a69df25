"""A key frame carried through a clip whose correct edit is known."""

from __future__ import annotations

import random

import pytest
import torch

from ei2 import key_frame
from ei2.measures import psnr
from ei2.object_motion import object_motion
from miniature import motion
from miniature.clips import QUICKSTART_TARGET, quickstart_clip
from miniature.scene import Actor, View, render
from miniature.world import object_mask
from miniature.world import render as render_scenes

SCENES = quickstart_clip()
SOURCE, TRUTH = (render_scenes([scene.edited(**changes) for scene in SCENES]) for changes in ({}, QUICKSTART_TARGET))


def uneven(shape: str = "star", seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """An edit whose object has another size and angle in every frame, and the correct edit."""
    rng, target = random.Random(seed), [scene.edited(shape=shape, color="orange") for scene in SCENES]
    edit = [scene.edited(radius=scene.radius * rng.uniform(0.85, 1.15), angle=rng.uniform(-3, 3)) for scene in target]
    return render_scenes(edit), render_scenes(target)


@pytest.fixture(scope="module")
def found():
    """Regions of the uneven edit, and the motion they give."""
    edit, truth = uneven()
    regions = key_frame.edited_region(SOURCE, edit)
    return edit, truth, regions, object_motion(SOURCE, regions, len(SOURCE) // 2)


def test_the_region_is_where_old_and_new_object_are():
    target = [scene.edited(**QUICKSTART_TARGET) for scene in SCENES]
    either = torch.maximum(object_mask(SCENES), object_mask(target)) > 0.5
    region = key_frame.edited_region(SOURCE, TRUTH) > 0.5
    assert (region & either).sum() / (region | either).sum() > 0.9


def test_no_edit_is_said():
    noise = 0.02 * torch.rand(SOURCE.shape, generator=torch.Generator().manual_seed(0))
    for edit in (SOURCE, SOURCE + noise):
        with pytest.raises(ValueError, match="hardly differs from its clip, so there is nothing to carry: raise cfg"):
            key_frame.edited_region(SOURCE, edit)


def test_an_edit_of_everything_needs_a_mask():
    with pytest.raises(ValueError, match="nearly the whole picture.*connect a mask"):
        key_frame.check_one_object(torch.ones(3, 1, 8, 8))
    with pytest.raises(ValueError, match="nothing inside the mask"):
        key_frame.check_one_object(torch.zeros(3, 1, 8, 8))
    key_frame.check_one_object(key_frame.edited_region(SOURCE, TRUTH))


def test_the_odd_frames_are_not_typical():
    edit = TRUTH.clone()
    odd = [0, 3, 4, 7, 9]
    edit[odd] = render_scenes([SCENES[i].edited(shape="star", color="yellow", radius=26) for i in odd])
    regions = key_frame.edited_region(SOURCE, edit)
    motions = object_motion(SOURCE, regions, 6)
    assert key_frame.typical_frame(edit, regions, motions) not in odd


@pytest.mark.parametrize("key", [0, 6, 11])
def test_a_correct_key_frame_makes_all_frames_correct(found, key):
    edit, truth, regions, motions = found
    region = key_frame.edited_region(SOURCE[key : key + 1], truth[key : key + 1])[0]
    result = key_frame.carried(SOURCE, edit, regions, truth[key], region, motions, key)
    assert not result.lost and result.followed.min() > 0.9
    assert result.frames.shape == edit.shape and result.changed.shape == regions.shape
    assert psnr(result.frames, truth) > psnr(edit, truth) + 3
    assert (result.frames[key] - truth[key]).abs().mean() < 0.01


def test_what_is_far_from_the_object_stays_the_edit(found):
    edit, truth, regions, motions = found
    edit = edit + 0.02  # not the source's colour
    result = key_frame.carried(SOURCE, edit, regions, edit[5], regions[5], motions, 5)
    untouched = (result.changed == 0).expand_as(edit)
    assert 0.3 < untouched.float().mean() < 0.95
    assert torch.equal(result.frames[untouched], edit[untouched])


def test_frames_in_which_the_object_is_hidden_keep_their_own_edit():
    actor = Actor("square", "blue", x=40, y=64, radius=22, angle=0.4)
    views = motion.along(motion.still(View((actor,), "dotted", "white"), 6), [(30, 64), (44, 64), (70, 64), (90, 64)])
    edit = render([view.with_actor(kind="circle", color="red") for view in views])
    source = render(views)
    regions = key_frame.edited_region(source, edit)
    for clip in (source, edit):
        clip[4, :, 30:100, 40:] = torch.tensor([0.1, 0.5, 0.2]).view(3, 1, 1)
    result = key_frame.carried(source, edit, regions, edit[1], regions[1], object_motion(source, regions, 1), 1)
    assert result.lost == [4] and result.followed[[0, 1, 2, 3]].min() > key_frame.FOLLOWED
    assert torch.equal(result.frames[4], edit[4])


def test_the_frame_behind_a_picture_is_found():
    for i in (0, 5, 11):
        assert key_frame.frame_of(SOURCE, TRUTH[i]) == i


def test_each_frame_takes_the_nearest_key_frame_from_which_it_was_reached():
    def result(value: float, followed: list[float]) -> key_frame.Carried:
        return key_frame.Carried(
            torch.full((5, 3, 2, 2), value), torch.tensor(followed), torch.full((5, 1, 2, 2), value)
        )

    near = key_frame.nearest({0: result(0.1, [1, 1, 0.9, 0.1, 0.2]), 4: result(0.4, [1, 0.1, 0.2, 0.8, 0.1])})
    assert near.frames[:, 0, 0, 0].tolist() == pytest.approx([0.1, 0.1, 0.1, 0.4, 0.4])
    assert near.followed.tolist() == pytest.approx([1, 1, 0.9, 0.8, 0.1]) and near.lost == [4]
    assert torch.equal(near.changed[:, :, 0, 0], near.frames[:, :1, 0, 0])
