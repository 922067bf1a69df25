"""EditBench's clips: what the two splits hold and what they must not share."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from benchmarks.editbench.agreement import visible
from benchmarks.editbench.clips import (
    KINDS,
    LEAST_CONTRAST,
    VALUES,
    Clip,
    blend_words,
    changes_of,
    edit_of,
    motions_first,
    quick,
    split,
)
from benchmarks.editbench.motions import OF_SHAPES, OF_THINGS, PAIR, PARAMETERS, SPLITS, ranges_of
from miniature.scene import object_mask, prompt, render

CLIPS = {name: split(name) for name in SPLITS} | {"quick": quick()}
EDITS = [(clip, edit) for clips in CLIPS.values() for clip in clips for edit in clip.edits]
MOVED = {  # what a motion changes of the object, and of the view
    "line": ({"x", "y"}, set()),
    "circle": ({"x", "y"}, set()),
    "hop": ({"x", "y", "stretch"}, set()),
    "squash": ({"stretch"}, set()),
    "grow_shrink": ({"radius"}, set()),
    "pan": (set(), {"camera"}),
    "zoom": ({"x", "y", "radius"}, {"camera"}),
    "pass": ({"x"}, set()),
    "enter": ({"x"}, set()),
    "spin": ({"angle"}, set()),
}


@pytest.mark.parametrize("name", SPLITS)
def test_a_split_holds_everything_about_equally_often(name: str):
    clips = CLIPS[name]
    shapes = [clip for clip in clips if clip.name.endswith("-shape")]
    assert len({clip.name for clip in clips}) == 33 and len(shapes) == 6
    assert Counter(clip.motion for clip in clips if clip not in shapes) == dict.fromkeys(OF_THINGS, 3)
    assert Counter(clip.motion for clip in shapes) == dict.fromkeys(OF_SHAPES, 1)
    kinds = Counter(edit.kind for clip in clips for edit in clip.edits)
    assert sum(kinds.values()) == 66 and kinds.keys() == KINDS.keys()
    assert {kinds[kind] for kind in ("thing", "place", "color", "look", "thing_place")} == {10, 11}
    assert all(2 <= kinds[kind] <= 3 for kind in ("shape", "shape_color", "background", "pattern", "object_background"))
    assert all(len({edit.kind for edit in clip.edits}) == 2 for clip in clips)
    assert Counter(len(clip.views) for clip in clips) == {8: 27, 16: 6}
    used = lambda attribute: {getattr(clip.views[0], attribute) for clip in clips if clip not in shapes}
    assert used("place") == set(VALUES["place"]) and used("look") == {"normal"}
    assert len({clip.views[0].actors[0].kind for clip in clips if clip not in shapes}) >= 18


def test_each_third_shows_every_motion_of_things_and_two_shapes():
    ordered = motions_first(CLIPS["dev"])
    for third in (ordered[:11], ordered[11:22], ordered[22:]):
        assert {clip.motion for clip in third if not clip.name.endswith("-shape")} == set(OF_THINGS)
        assert sum(clip.name.endswith("-shape") for clip in third) == 2


@pytest.mark.parametrize("name", SPLITS)
def test_a_split_is_the_same_at_every_call(name: str):
    assert split(name) == CLIPS[name]


def test_the_quick_clips():
    assert [(len(clip.views), len(clip.edits)) for clip in CLIPS["quick"]] == [(4, 1), (4, 1)]


def test_every_edit_changes_what_its_kind_says_and_nothing_else():
    for clip, edit in EDITS:
        assert set(edit.changes) == set(KINDS[edit.kind])
        assert edit.target_prompt == prompt(edit.views[-1]) != clip.source_prompt
        for source, target in zip(clip.views, edit.views, strict=True):
            old, new = source.actors[0], target.actors[0]
            assert new == old.edited(kind=new.kind, color=new.color), "a new thing takes over the pose"
            assert target.actors[1:] == source.actors[1:] and target.camera == source.camera


def test_a_new_thing_keeps_a_colour_only_if_it_comes_in_colours():
    (recoloured,) = edit_of("thing", {"thing": "car"}, CLIPS["quick"][0].views[:1]).views
    assert recoloured.actors[0].color == CLIPS["quick"][0].views[0].actors[0].color is not None
    assert edit_of("thing", {"thing": "cat"}, [recoloured]).views[0].actors[0].color is None


def test_the_object_stays_in_the_picture_at_the_sizes_of_the_training():
    for clip, _ in EDITS:
        for view in clip.views:
            actor = view.actors[0]
            assert 22 <= actor.radius <= 39
            if clip.motion not in ("enter", "zoom", "pass"):
                assert 33 <= actor.x <= 90 and 40 <= actor.y <= 92
        assert visible(clip.views).float().mean() >= 0.75


def test_every_object_and_every_motion_can_be_seen_in_the_source_and_in_every_correct_result():
    for clip in CLIPS["dev"] + CLIPS["test"]:
        for views in (clip.views, *(edit.views for edit in clip.edits)):
            pair = (views[len(views) // 3], views[0])
            pictures, mask = render(pair), object_mask(pair)
            assert pictures.diff(dim=0).abs().mean() > 4e-3, (clip.name, prompt(views[0]))
            empty = render([view.edited(actors=view.actors[1:]) for view in pair])
            difference = (pictures - empty).abs().amax(dim=1, keepdim=True)
            assert (difference * mask)[0].sum() / mask[0].sum() >= LEAST_CONTRAST


def test_every_correct_picture_of_a_pattern_is_the_only_one():
    """Where the target's pattern begins, and which of its tones is the lighter, must follow from the source."""
    for clip, edit in EDITS:
        source, target = clip.views[0], edit.views[0]
        if target.background is None or target.place == "plain":
            continue
        assert source.place != "plain", "its place would be open"
        assert source.place != "striped" or target.place == "striped", "its height would be open"
        assert (source.background == "black") == (target.background == "black"), "its tones could change places"


def test_a_new_place_leaves_more_than_one_correct_picture():
    for _, edit in EDITS:
        assert edit.one_answer == (edit.kind not in ("place", "thing_place"))


def test_the_motions_move_what_they_say():
    for clip in CLIPS["dev"] + CLIPS["test"]:
        of_actor, of_view = MOVED[clip.motion]
        for field in ("x", "y", "radius", "angle", "stretch", "mirrored", "kind", "color"):
            still = len({getattr(view.actors[0], field) for view in clip.views}) == 1
            assert still == (field not in of_actor), (clip.name, field)
        for field in ("place", "background", "look", "camera"):
            assert (len({getattr(view, field) for view in clip.views}) == 1) == (field not in of_view)
        assert len(clip.views[0].actors) == 1 + (clip.motion in PAIR)


@pytest.mark.parametrize("motion", PARAMETERS)
def test_the_splits_share_no_motion_parameters(motion: str):
    dev, test = (ranges_of(motion, name) for name in SPLITS)
    assert dev.keys() == test.keys()
    for key in dev:
        assert dev[key][1] <= test[key][0] or test[key][1] <= dev[key][0], key
    for name in SPLITS:
        for clip in CLIPS[name]:
            for key, value in clip.parameters.items():
                low, high = ranges_of(clip.motion, name)[key]
                assert low <= value <= high


@pytest.mark.parametrize("attribute", VALUES)
def test_the_splits_share_no_changes(attribute: str):
    values = VALUES[attribute]
    pairs = {name: {(a, b) for a, targets in changes_of(name, attribute).items() for b in targets} for name in SPLITS}
    assert not pairs["dev"] & pairs["test"]
    assert pairs["dev"] | pairs["test"] == {(a, b) for a in values for b in values if a != b}
    field = {"thing": "kind", "shape": "kind", "shape_color": "color", "pattern": "place"}.get(attribute, attribute)
    for name in SPLITS:
        used = set()
        for clip in CLIPS[name]:
            first = clip.views[0]
            for edit in clip.edits:
                if attribute in edit.changes:
                    owner = first.actors[0] if field in ("kind", "color") else first
                    used.add((getattr(owner, field), edit.changes[attribute]))
        assert used and used <= pairs[name]


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="no split 'train': use one of dev, test"):
        split("train")


def test_views_render_as_one_clip():
    clip: Clip = CLIPS["test"][1]
    assert render(clip.views).shape == torch.Size([len(clip.views), 3, 128, 128])


def test_blend_words_are_the_objects_where_only_the_object_changes():
    lacking = 0
    for clip, edit in EDITS:
        words = blend_words(clip, edit)
        if words is None:
            lacking += 1
            assert set(edit.changes) & {"place", "look", "background", "pattern"}
        else:
            for text, own in zip((clip.source_prompt, edit.target_prompt), words):
                assert own and all(word in text.split() for word in own)
                assert own[-1] in text and "background" not in own
    assert 0.3 < lacking / len(EDITS) < 0.8
