"""EditBench's scores on renders, whose faults are known."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from benchmarks.editbench.clips import Clip, Edit
from benchmarks.editbench.scores import LOST, PSNR_LIMIT, centroid_error, centroids, score
from miniature.judge import Judge
from miniature.world import COLORS, Scene, object_mask, render

SCORES = ("success", "preservation", "psnr", "psnr_object", "psnr_background", "flicker", "centroid_error")
SOURCE = tuple(
    Scene("star", "blue", "dotted", "yellow", x=50 + 4 * i, y=60.0, radius=30.0, angle=0.2) for i in range(4)
)
CHANGES = {"shape": "heart", "color": "red"}
EDIT = Edit("shape_color", CHANGES, tuple(scene.edited(**CHANGES) for scene in SOURCE))
CLIP = Clip("a clip", "line", {}, SOURCE, (EDIT,))
TRUTH = render(list(EDIT.target_scenes))


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.load()


def with_changes(**changes) -> torch.Tensor:
    return render([scene.edited(**changes) for scene in EDIT.target_scenes])


def displaced(dx: float, dy: float) -> torch.Tensor:
    return render([scene.edited(x=scene.x + dx, y=scene.y + dy) for scene in EDIT.target_scenes])


def test_the_right_result_scores_best(judge):
    assert score(TRUTH, CLIP, EDIT, judge) == {
        "success": 1.0,
        "preservation": 1.0,
        "psnr": PSNR_LIMIT,
        "psnr_object": PSNR_LIMIT,
        "psnr_background": PSNR_LIMIT,
        "flicker": 0.0,
        "centroid_error": 0.0,
    }


def test_the_unedited_clip_keeps_everything_and_changes_nothing(judge):
    scores = score(render(list(SOURCE)), CLIP, EDIT, judge)
    assert tuple(scores) == SCORES
    assert scores["success"] == 0.0
    assert scores["preservation"] == 1.0
    assert scores["psnr_object"] < 10 < 30 < scores["psnr_background"]  # only anti-aliased edges count as background


def test_success_needs_every_changed_attribute(judge):
    assert score(with_changes(shape="star"), CLIP, EDIT, judge)["success"] == 0.0
    half = torch.cat([TRUTH[:2], with_changes(shape="star")[2:]])
    assert score(half, CLIP, EDIT, judge)["success"] == 0.5
    assert score(with_changes(background="cyan"), CLIP, EDIT, judge)["success"] == 1.0


def test_preservation_counts_the_attributes_that_should_stay(judge):
    assert score(with_changes(background="cyan"), CLIP, EDIT, judge)["preservation"] == 0.5
    assert score(with_changes(background="cyan", pattern="plain"), CLIP, EDIT, judge)["preservation"] == 0.0
    quarter = torch.cat([TRUTH[:2], with_changes(pattern="striped")[2:]])
    assert score(quarter, CLIP, EDIT, judge)["preservation"] == 0.75
    assert score(with_changes(shape="star", color="green"), CLIP, EDIT, judge)["preservation"] == 1.0


def test_errors_count_where_they_lie(judge):
    union = torch.maximum(object_mask(list(SOURCE)), object_mask(list(EDIT.target_scenes)))
    outside = TRUTH + 0.1 * (union == 0) * torch.where(TRUTH < 0.5, 1, -1)
    scores = score(outside, CLIP, EDIT, judge)
    assert scores["psnr_object"] == PSNR_LIMIT
    assert scores["psnr_background"] == pytest.approx(20, abs=0.5)
    assert scores["psnr_background"] < scores["psnr"] < PSNR_LIMIT


def test_flicker_counts_errors_that_come_and_go(judge):
    blinking = TRUTH.clone()
    blinking[::2] = blinking[::2] * 0.9
    expected = 0.1 * float(TRUTH.mean())  # every step adds or removes a tenth of the brightness; frames are alike
    assert score(blinking, CLIP, EDIT, judge)["flicker"] == pytest.approx(expected, rel=0.05)
    assert score(TRUTH * 0.9, CLIP, EDIT, judge)["flicker"] < 0.1 * expected


@pytest.mark.parametrize(
    "target",
    [
        Scene("heart", "red", "dotted", "yellow"),
        Scene("ring", "black", "striped", "blue", radius=25.0),
        Scene("star", "white", "checkered", "black", radius=24.0),
        Scene("square", "purple", "plain", "pink"),
        Scene("triangle", "orange", "checkered", "red"),
    ],
    ids=lambda scene: f"{scene.color}-{scene.background}",
)
def test_centroid_error_of_a_displacement(target: Scene):
    truth, moved = render([target]), render([target.edited(x=69.0, y=61.0)])
    assert centroid_error(truth, truth, target) == 0
    assert centroid_error(moved, truth, target) == pytest.approx(math.hypot(5, 3), abs=0.05)
    soft = F.avg_pool2d(moved, 5, stride=1, padding=2, count_include_pad=False)
    noise = 0.04 * torch.randn(soft.shape, generator=torch.Generator().manual_seed(0))
    assert centroid_error((soft + noise).clamp(0, 1), truth, target) == pytest.approx(math.hypot(5, 3), abs=0.3)


def test_the_centroid_is_the_shapes():
    """A circle's is its centre; its area is nearly the soft mask's."""
    scene = Scene("circle", "green", "dotted", "white", x=50.0, y=70.0, radius=30.0)
    places, areas = centroids(render([scene]), scene)
    assert places[0].tolist() == pytest.approx([50, 70], abs=0.02)
    assert areas[0].item() == pytest.approx(object_mask([scene]).sum().item(), rel=0.03)


def test_spots_of_the_objects_colour_elsewhere_do_not_pull_the_centroid():
    spotted = TRUTH.clone()
    spotted[:, :, 4:12, 100:120] = torch.tensor(COLORS["red"]).view(1, 3, 1, 1) / 255
    assert centroid_error(spotted, TRUTH, EDIT.target_scenes[0]) == 0


def test_a_missing_object_counts_half_the_picture(judge):
    empty = render([scene.edited(x=-128.0) for scene in EDIT.target_scenes])
    assert score(empty, CLIP, EDIT, judge)["centroid_error"] == LOST
    half = torch.cat([TRUTH[:2], empty[2:]])
    assert score(half, CLIP, EDIT, judge)["centroid_error"] == LOST / 2


def test_a_displaced_object_is_scored_by_its_displacement(judge):
    assert score(displaced(5, -3), CLIP, EDIT, judge)["centroid_error"] == pytest.approx(5.83, abs=0.05)


def test_another_number_of_frames_is_refused(judge):
    with pytest.raises(ValueError, match=r"a clip should be \(4, 3, 128, 128\), but is \(3, 3, 128, 128\)"):
        score(TRUTH[:3], CLIP, EDIT, judge)
