"""The bundled clip, the edits of the bundled workflows, and clips as files."""

from __future__ import annotations

import json

import pytest
import torch

from devtools.environment import ROOT
from miniature.clips import (
    EDITS,
    FPS,
    bundled_clip,
    bundled_truth,
    changed,
    moving,
    read_video,
    source_prompt,
    square_clip,
    target_prompt,
    write_clip,
    write_video,
)
from miniature.scene import object_mask, prompt, render, shape_view


def test_the_bundled_clip_crosses_the_picture_and_stays_in_it():
    clip = bundled_clip()
    first, last = clip[0].actors[0], clip[-1].actors[0]
    assert len(clip) == 12 and last.x - first.x > 30 and clip[-1].camera.pan_x > 30
    masks = object_mask(clip)
    assert not masks[..., 0].any() and not masks[..., -1].any()


@pytest.mark.parametrize("workflow", EDITS)
def test_an_edit_keeps_the_motion_and_its_prompts_are_in_the_workflow(workflow):
    for view, target in zip(bundled_clip(), bundled_truth(workflow)):
        assert target != view and target.camera == view.camera
        before, after = view.actors[0], target.actors[0]
        assert (before.x, before.y, before.radius, before.angle) == (after.x, after.y, after.radius, after.angle)
    text = (ROOT / "workflows" / "api" / f"{workflow}.json").read_text(encoding="utf-8")
    for words in (source_prompt(), target_prompt(workflow)):
        assert json.dumps(words) in text


def test_changes_reach_the_view_and_its_thing():
    (view,) = changed(bundled_clip()[:1], kind="cat", place="beach", look="sepia")
    assert prompt(view) == "a sepia photo of a cat on a beach"


def test_drift_moves_the_pattern_the_way_it_says():
    view = shape_view("circle", "red", "striped", "green")
    first, last = render(moving(view, 2, [(64, 64)] * 4, drift=(8, 0)))
    assert torch.allclose(first[:, :20, :-8], last[:, :20, 8:], atol=1e-4)


@pytest.mark.parametrize("clip", [bundled_clip(), square_clip()], ids=["car", "square"])
def test_written_clip_reads_back_with_its_colors(tmp_path, clip):
    path = tmp_path / "clip.mp4"
    write_clip(clip, path, FPS)
    error = read_video(path) - render(clip)
    assert -10 * error.square().mean().log10() >= 31
    assert error.mean(dim=(0, 2, 3)).abs().max() < 0.01  # no shift of tone


def test_odd_sizes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="even sizes"):
        write_video(torch.zeros(2, 3, 63, 64), tmp_path / "odd.mp4", fps=8)
