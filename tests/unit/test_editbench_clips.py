"""EditBench's clips: what the two splits hold and what they must not share."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from benchmarks.editbench.clips import KINDS, MOTIONS, PARAMETERS, SPLITS, VALUES, Clip, changes_of, quick, split
from miniature.world import PATTERNS, prompt, render

CLIPS = {name: split(name) for name in SPLITS} | {"quick": quick()}


@pytest.mark.parametrize("name", SPLITS)
def test_a_split_holds_everything_equally_often(name: str):
    clips = CLIPS[name]
    assert len({clip.name for clip in clips}) == 24
    assert Counter(clip.motion for clip in clips) == dict.fromkeys(MOTIONS, 4)
    assert Counter(edit.kind for clip in clips for edit in clip.edits) == dict.fromkeys(KINDS, 8)
    assert all(len({edit.kind for edit in clip.edits}) == 2 for clip in clips)
    long = [clip for clip in clips if len(clip.scenes) == 16]
    assert len({clip.motion for clip in long}) == len(long) == 4
    assert all(len(clip.scenes) == 8 for clip in clips if clip not in long)
    patterns = Counter(clip.scenes[0].pattern for clip in clips)
    assert min(patterns[pattern] for pattern in PATTERNS) >= 4
    for attribute in ("shape", "color", "background"):
        assert {getattr(clip.scenes[0], attribute) for clip in clips} == set(VALUES[attribute])


@pytest.mark.parametrize("name", SPLITS)
def test_a_split_is_the_same_at_every_call(name: str):
    assert split(name) == CLIPS[name]


def test_the_quick_clips():
    assert [(len(clip.scenes), len(clip.edits)) for clip in CLIPS["quick"]] == [(4, 1), (4, 1)]


@pytest.mark.parametrize("name", CLIPS)
def test_every_edit_changes_what_its_kind_says_and_nothing_else(name: str):
    for clip in CLIPS[name]:
        for edit in clip.edits:
            assert set(edit.changes) == set(KINDS[edit.kind])
            for source, target in zip(clip.scenes, edit.target_scenes, strict=True):
                assert target == source.edited(**edit.changes)
                assert all(getattr(source, attribute) != value for attribute, value in edit.changes.items())
            assert edit.target_prompt == prompt(edit.target_scenes[-1]) != clip.source_prompt


@pytest.mark.parametrize("name", CLIPS)
def test_the_object_stands_out_within_the_placements_of_the_training(name: str):
    for scene in (scene for clip in CLIPS[name] for scenes in _all_scenes(clip) for scene in scenes):
        assert scene.color != scene.background
        assert 38 <= scene.x <= 90 and 38 <= scene.y <= 90
        assert 24 <= scene.radius <= 40


@pytest.mark.parametrize("name", CLIPS)
def test_every_motion_can_be_seen_in_the_source_and_in_every_right_result(name: str):
    for clip in CLIPS[name]:
        for scenes in _all_scenes(clip):
            change = render(list(scenes)).diff(dim=0).abs().amax(dim=1)
            assert change.mean() > 2e-3, (clip.name, prompt(scenes[0]))


@pytest.mark.parametrize("name", SPLITS)
def test_every_right_result_is_the_only_one(name: str):
    """Where the target's pattern begins, and which of its tones is the lighter, must follow from the source."""
    for clip in CLIPS[name]:
        for edit in clip.edits:
            source, target = clip.scenes[0], edit.target_scenes[0]
            if target.pattern == "plain":
                continue
            assert source.pattern != "plain", "its place would be open"
            assert source.pattern != "striped" or target.pattern == "striped", "its height would be open"
            assert (source.background == "black") == (target.background == "black"), "its tones could change places"


def test_the_motions_move_what_they_say():
    moved = {
        "line": {"x", "y"},
        "circle": {"x", "y"},
        "bounce": {"x", "y"},
        "spin": {"angle"},
        "grow_shrink": {"radius"},
        "scroll": {"offset_x", "offset_y"},
    }
    for clip in CLIPS["dev"] + CLIPS["test"]:
        for field in ("x", "y", "radius", "angle", "offset_x", "offset_y"):
            still = len({getattr(scene, field) for scene in clip.scenes}) == 1
            assert still == (field not in moved[clip.motion]), (clip.name, field)


def test_a_bounce_rises_from_one_ground_by_its_height():
    for clip in CLIPS["dev"] + CLIPS["test"]:
        if clip.motion == "bounce":
            heights = [scene.y for scene in clip.scenes]
            assert heights[0] == min(heights)
            assert 0.5 * clip.parameters["height"] < max(heights) - min(heights) <= clip.parameters["height"] + 1e-6


@pytest.mark.parametrize("motion", MOTIONS)
def test_the_splits_share_no_motion_parameters(motion: str):
    dev, test = PARAMETERS["dev"][motion], PARAMETERS["test"][motion]
    assert dev.keys() == test.keys()
    for key in dev:
        assert dev[key][1] <= test[key][0] or test[key][1] <= dev[key][0], key
    for name in SPLITS:
        for clip in CLIPS[name]:
            for key, value in clip.parameters.items():
                low, high = PARAMETERS[name][clip.motion][key]
                assert low <= value <= high


@pytest.mark.parametrize("attribute", VALUES)
def test_the_splits_share_no_attribute_changes(attribute: str):
    values = VALUES[attribute]
    pairs = {name: {(a, b) for a, targets in changes_of(name, attribute).items() for b in targets} for name in SPLITS}
    assert not pairs["dev"] & pairs["test"]
    assert pairs["dev"] | pairs["test"] == {(a, b) for a in values for b in values if a != b}
    assert len(pairs["dev"]) == len(pairs["test"])
    for name in SPLITS:
        used = {
            (getattr(clip.scenes[0], attribute), edit.changes[attribute])
            for clip in CLIPS[name]
            for edit in clip.edits
            if attribute in edit.changes
        }
        assert used and used <= pairs[name]


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="no split 'train': use one of dev, test"):
        split("train")


def test_scenes_render_as_one_clip():
    clip = CLIPS["test"][0]
    assert render(list(clip.scenes)).shape == torch.Size([8, 3, 128, 128])


def _all_scenes(clip: Clip) -> list:
    return [clip.scenes, *(edit.target_scenes for edit in clip.edits)]
