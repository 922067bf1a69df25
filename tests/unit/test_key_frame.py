"""A key frame carried through a clip whose correct edit is known."""

from __future__ import annotations

import random

import pytest
import torch

from ei2 import carried_edit, key_frame
from ei2.measures import psnr
from ei2.object_motion import object_motion
from miniature import motion
from miniature.clips import changed, square_clip
from miniature.scene import Actor, View, object_mask, render

CLIP = square_clip()
CIRCLE = changed(CLIP, kind="circle", color="red")
SOURCE, TRUTH = render(CLIP), render(CIRCLE)


def uneven(shape: str = "star", seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """An edit whose object has another size and angle in every frame, and the correct edit."""
    rng, target = random.Random(seed), changed(CLIP, kind=shape, color="orange")
    edit = [
        view.with_actor(radius=view.actors[0].radius * rng.uniform(0.85, 1.15), angle=rng.uniform(-3, 3))
        for view in target
    ]
    return render(edit), render(target)


@pytest.fixture(scope="module")
def found():
    """Regions of the uneven edit, and the motion they give."""
    edit, truth = uneven()
    regions = key_frame.edited_region(SOURCE, edit)
    return edit, truth, regions, object_motion(SOURCE, regions, len(SOURCE) // 2)


def test_the_region_is_where_old_and_new_object_are():
    either = torch.maximum(object_mask(CLIP), object_mask(CIRCLE)) > 0.5
    region = key_frame.edited_region(SOURCE, TRUTH) > 0.5
    assert (region & either).sum() / (region | either).sum() > 0.9


def test_no_edit_has_no_region():
    noise = 0.02 * torch.rand(SOURCE.shape, generator=torch.Generator().manual_seed(0))
    for edit in (SOURCE, SOURCE + noise):
        assert not key_frame.edited_region(SOURCE, edit).any()


def test_an_edit_of_everything_is_a_region_of_everything():
    elsewhere = render(changed(CIRCLE, background="yellow"))
    assert key_frame.edited_region(SOURCE, elsewhere).mean() > carried_edit.WHOLE


def test_gain():
    """The prompt takes away half of the error inside the first frame's region, all of it in the second's, and adds to
    that in the third; the fourth has no region. What lies outside the regions does not count."""
    clean, regions = torch.zeros(4, 2, 4, 4), torch.zeros(4, 1, 4, 4)
    regions[:3, :, 1:3, 1:3] = 1
    plain, errors = clean + 1, torch.tensor([0.5, 0.0, 2.0, 0.0]).sqrt().view(4, 1, 1, 1)
    prompted = torch.where(regions > 0, errors, 7.0)
    found = key_frame.gain(prompted, plain, clean, regions)
    torch.testing.assert_close(found[:3], torch.tensor([0.5, 1.0, -1.0]))
    assert found[3] == -torch.inf


def key_of(number: int, picture: torch.Tensor, source: torch.Tensor = SOURCE) -> key_frame.KeyFrame:
    here = source[number : number + 1]
    return key_frame.KeyFrame(number, picture, key_frame.edited_region(here, picture.unsqueeze(0))[0])


@pytest.mark.parametrize("key", [0, 6, 11])
def test_a_correct_key_frame_makes_all_frames_correct(found, key):
    edit, truth, regions, motions = found
    told = []
    result = key_frame.carried(
        SOURCE, edit, regions, [key_of(key, truth[key])], motions, on_frame=lambda: told.append(1)
    )
    assert not result.lost and result.followed.min() > 0.9 and len(told) == len(SOURCE)
    assert result.frames.shape == edit.shape and result.changed.shape == regions.shape
    assert psnr(result.frames, truth) > psnr(edit, truth) + 3
    assert (result.frames[key] - truth[key]).abs().mean() < 0.01


def test_what_is_far_from_the_object_stays_the_edit(found):
    edit, truth, regions, motions = found
    edit = edit + 0.02  # not the source's colour
    result = key_frame.carried(SOURCE, edit, regions, [key_frame.KeyFrame(5, edit[5], regions[5])], motions)
    untouched = (result.changed == 0).expand_as(edit)
    assert 0.3 < untouched.float().mean() < 0.95
    assert torch.equal(result.frames[untouched], edit[untouched])


def test_without_restoring_the_source_never_shows(found):
    """What the edit has changed around the object, too, would come back."""
    edit, truth, regions, motions = found
    key = [key_frame.KeyFrame(5, edit[5], regions[5])]
    with_source, without = (
        key_frame.carried(SOURCE, edit.clamp(max=0.3), regions, key, motions, restore).frames
        for restore in (True, False)
    )
    assert with_source[8].mean() > without[8].mean() + 0.005


def test_frames_in_which_the_object_is_hidden_keep_their_own_edit():
    actor = Actor("square", "blue", x=40, y=64, radius=22, angle=0.4)
    views = motion.along(motion.still(View((actor,), "dotted", "white"), 6), [(30, 64), (44, 64), (70, 64), (90, 64)])
    edit = render([view.with_actor(kind="circle", color="red") for view in views])
    source = render(views)
    regions = key_frame.edited_region(source, edit)
    for clip in (source, edit):
        clip[4, :, 30:100, 40:] = torch.tensor([0.1, 0.5, 0.2]).view(3, 1, 1)
    motions = object_motion(source, regions, 1)
    result = key_frame.carried(source, edit, regions, [key_of(1, edit[1], source)], motions)
    assert result.lost == [4] and result.followed[[0, 1, 2, 3, 5]].min() > key_frame.FOLLOWED
    assert torch.equal(result.frames[4], edit[4])


def test_a_key_frame_that_ends_at_the_picture_does_not_bring_the_source_back():
    """In other frames more of the object is seen than in the key frame: there they keep their own edit."""
    actor = Actor("square", "blue", x=0, y=64, radius=26, angle=0.4)
    views = motion.along(motion.still(View((actor,), "dotted", "white"), 6), [(2, 64), (20, 64), (50, 64), (70, 64)])
    edit, source = render([view.with_actor(kind="circle", color="red") for view in views]), render(views)
    regions = key_frame.edited_region(source, edit)
    result = key_frame.carried(source, edit, regions, [key_of(0, edit[0], source)], object_motion(source, regions, 0))
    blue = lambda pictures: ((pictures[:, 2] - pictures[:, 0]) > 0.3).float().mean()
    assert blue(source) > 0.02 and blue(result.frames) < 0.003


def test_a_new_object_much_larger_than_the_old_one_is_carried_whole():
    """Most of its region is background, which does not move with it."""
    actor = Actor("square", "blue", x=40, y=64, radius=20, angle=0.4)
    views = motion.along(motion.still(View((actor,), "striped", "white"), 6), [(40, 64), (54, 60), (74, 64), (88, 64)])
    edit = render([view.with_actor(kind="circle", color="red", radius=36.0) for view in views])
    source = render(views)
    regions = key_frame.edited_region(source, edit)
    result = key_frame.carried(source, edit, regions, [key_of(0, edit[0], source)], object_motion(source, regions, 0))
    assert not result.lost and result.followed.min() > key_frame.FOLLOWED


def test_the_frame_behind_a_picture_is_found():
    regions = key_frame.edited_region(SOURCE, TRUTH)
    for i in (0, 5, 11):
        assert key_frame.frame_of(SOURCE, TRUTH[i], regions) == i


def leaving(radius: float = 20.0, **changes) -> torch.Tensor:
    """A clip whose object has left the picture in the last frame."""
    actor = {"kind": "square", "color": "blue", "y": 64, "radius": radius, "angle": 0.4, **changes}
    return render([View((Actor(x=x, **actor),), "plain", "white") for x in (60, 86, 170)])


@pytest.mark.parametrize("radius", [22.0, 30.0])
def test_an_object_that_has_left_is_not_brought_back(radius):
    """Nor is a picture of it taken for the frame in which it is missing."""
    source, edit = leaving(), leaving(radius, kind="circle", color="red")
    for drawn, index in ((None, 0), (edit[:1], -1)):
        numbers, result = carried_edit.carried_edit(source, edit, None, drawn, index, None)
        assert numbers == [0] and result.lost == [2] and torch.equal(result.frames[2], source[2])


@pytest.mark.parametrize("margin", [0, 2, 4])
def test_an_inverted_mask_is_said(margin):
    allowed = torch.nn.functional.max_pool2d(object_mask(CLIP), 2 * margin + 1, 1, margin)
    carried_edit.carried_edit(SOURCE, TRUTH, allowed, None, 0, None)
    with pytest.raises(carried_edit.Unsuitable, match="inside the mask: is it inverted"):
        carried_edit.carried_edit(SOURCE, TRUTH, 1 - allowed, None, 0, None)


def test_each_frame_takes_the_nearest_key_frame_from_which_it_was_reached(found):
    _, truth, _, motions = found
    edit = render(changed(CIRCLE, color="yellow"))
    regions = key_frame.edited_region(SOURCE, edit)
    red, green = (render(changed(CIRCLE, color=color)) for color in ("red", "green"))
    result = key_frame.carried(SOURCE, edit, regions, [key_of(1, red[1]), key_of(10, green[10])], motions)
    middles = [result.frames[i, :, round(view.actors[0].y), round(view.actors[0].x)] for i, view in enumerate(CLIP)]
    assert [int(middle.argmax()) for middle in middles] == [0] * 6 + [1] * 6
