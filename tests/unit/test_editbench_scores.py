"""EditBench's scores on renders, whose faults are known."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.editbench.clips import Clip, Edit, clips_of, edit_of
from benchmarks.editbench.scores import LOST, PSNR_LIMIT, judged, score
from miniature import motion
from miniature.judge import Judge
from miniature.scene import Actor, View, object_mask, render, shape_view

SCORES = ("success", "preservation", "psnr_object", "agreement", "psnr", "psnr_background", "flicker", "centroid_error")
SHAPE = tuple(
    shape_view("star", "blue", "dotted", "yellow", x=50.0 + 4 * i, y=60.0, radius=30.0, angle=0.2) for i in range(4)
)
CAR = tuple(motion.panning(motion.still(View((Actor("car", "blue", y=72.0, radius=34.0),), "desert"), 4), 12.0))


def clip_of(views: tuple[View, ...], kind: str, **changes: str) -> tuple[Clip, Edit]:
    edit = edit_of(kind, changes, views)
    return Clip("a clip", "line", {}, views, (edit,)), edit


CLIP, EDIT = clip_of(SHAPE, "shape_color", shape="heart", shape_color="red")
TRUTH = render(EDIT.views)


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.load()


def with_object(views=EDIT.views, **attributes) -> torch.Tensor:
    return render([view.with_actor(**attributes) for view in views])


@pytest.mark.parametrize(
    "views, kind, changes",
    [
        (SHAPE, "shape_color", {"shape": "heart", "shape_color": "red"}),
        (SHAPE, "background", {"background": "cyan"}),
        (CAR, "color", {"color": "green"}),
        (CAR, "thing", {"thing": "cat"}),
        (CAR, "look", {"look": "sepia"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_correct_result_scores_best(judge, views, kind, changes):
    clip, edit = clip_of(views, kind, **changes)
    best = dict.fromkeys(("success", "preservation"), 1.0)
    best |= dict.fromkeys(("psnr", "psnr_object", "psnr_background"), PSNR_LIMIT) | {"flicker": 0.0}
    of_object = {"agreement": 1.0, "centroid_error": 0.0}
    scores = score(render(edit.views), clip, edit, judge)
    if kind in ("background", "look"):  # more than the object changes
        assert all(math.isnan(scores.pop(name)) for name in of_object)
        assert scores == best
    else:
        assert scores == best | of_object


def test_correct_results_reach_the_best_scores_of_the_judge(judge):
    """On every clip of the development split, even where two things hide each other: what is lost is the methods'."""
    scores = [judged(render(edit.views), clip, edit, judge) for clip in clips_of("dev") for edit in clip.edits]
    for name, unseen in (("success", 1), ("preservation", 0)):  # the judge has no word for the colour of one of two
        values = [score[name] for score in scores if not math.isnan(score[name])]
        assert len(values) == len(scores) - unseen
        assert sum(values) / len(values) > 0.98 and min(values) >= 0.5, (name, values)


def test_an_edit_with_more_than_one_correct_picture_has_no_score_against_one(judge):
    clip, edit = clip_of(CAR, "place", place="snow")
    scores = score(render(edit.views), clip, edit, judge)
    assert tuple(scores) == SCORES
    assert scores["success"] == scores["preservation"] == 1
    assert [name for name in SCORES if math.isnan(scores[name])] == list(SCORES[3:])


def test_the_unedited_clip_keeps_everything_and_changes_nothing(judge):
    scores = score(render(SHAPE), CLIP, EDIT, judge)
    assert tuple(scores) == SCORES
    assert scores["success"] == 0.0
    assert scores["preservation"] == 1.0
    assert scores["psnr_object"] < 10 < 30 < scores["psnr_background"]  # only anti-aliased edges count as background


def test_success_needs_everything_that_changes(judge):
    success = lambda pictures: judged(pictures, CLIP, EDIT, judge)["success"]
    assert success(with_object(kind="star")) == 0.0
    assert success(torch.cat([TRUTH[:2], with_object(kind="star")[2:]])) == 0.5
    assert success(render([view.edited(background="cyan") for view in EDIT.views])) == 1.0


def test_preservation_counts_what_should_stay(judge):
    kept = lambda pictures, clip=CLIP, edit=EDIT: judged(pictures, clip, edit, judge)["preservation"]
    other_ground = render([view.edited(background="cyan") for view in EDIT.views])
    assert kept(other_ground) == pytest.approx(2 / 3)  # the pattern and the look stay
    assert kept(with_object(kind="star", color="green")) == 1.0
    clip, edit = clip_of(CAR, "thing", thing="cat")
    assert kept(render([view.edited(place="snow") for view in edit.views]), clip, edit) == 0.5  # place, not look


def test_the_other_of_two_things_counts_with_the_first(judge):
    """The judge is asked for both things that it sees."""
    views = tuple(motion.still(View((Actor("cat", x=38, radius=25), Actor("house", x=90, radius=25)), "beach"), 4))
    clip, edit = clip_of(views, "thing", thing="elephant")
    assert judged(render(edit.views), clip, edit, judge)["success"] == 1
    lost = render([view.edited(actors=view.actors[:1]) for view in edit.views])
    assert judged(lost, clip, edit, judge)["success"] == 0


def test_frames_without_the_object_are_not_judged(judge):
    views = tuple(motion.entering(motion.still(CAR[0], 6)))
    clip, edit = clip_of(views, "thing", thing="cat")
    pictures = render(edit.views)
    pictures[0] = 0.5
    assert judged(pictures, clip, edit, judge) == {"success": 1.0, "preservation": 1.0}


def test_errors_count_where_they_lie(judge):
    union = torch.maximum(object_mask(SHAPE), object_mask(EDIT.views))
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


def test_a_missing_object_counts_half_the_picture(judge):
    empty = render([view.edited(actors=()) for view in EDIT.views])
    scores = score(empty, CLIP, EDIT, judge)
    assert scores["centroid_error"] == LOST and scores["agreement"] == 0


def test_a_displaced_object_is_scored_by_its_displacement(judge):
    moved = render([view.with_actor(x=view.actors[0].x + 5, y=view.actors[0].y - 3) for view in EDIT.views])
    assert score(moved, CLIP, EDIT, judge)["centroid_error"] == pytest.approx(5.83, abs=0.2)


def test_another_number_of_frames_is_refused(judge):
    with pytest.raises(ValueError, match=r"a clip should be \(4, 3, 128, 128\), but is \(3, 3, 128, 128\)"):
        score(TRUTH[:3], CLIP, EDIT, judge)
