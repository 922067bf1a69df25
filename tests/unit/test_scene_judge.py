"""What the judge of the world with things is asked, and how its answers are counted."""

from __future__ import annotations

import random

import torch

from miniature.scene import Actor, View
from miniature.scene_judge import SceneJudge, answers, right, shares
from miniature.things import LEARNED
from miniature.train_judge import accuracy, labels
from miniature.world import SHAPES

from .things import need_sprites

pytestmark = need_sprites()
CAT = View((Actor("cat"),), "beach", look="night")
CAR = View((Actor("car", "blue"),), "striped", "red")
PAIR = View((Actor("cat"), Actor("ball")), "snow", look="sepia")


def test_questions_without_an_answer_are_not_asked():
    assert answers([CAT]) == [{"thing": "cat", "place": "beach", "look": "night"}]
    assert answers([CAR]) == [
        {"thing": "car", "place": "striped", "look": "normal", "background": "red", "color": "blue"}
    ]
    assert "color" not in answers([CAR.edited(place="snow", background=None, look="sepia")])[0]  # it cannot be seen
    assert answers([PAIR])[0]["thing"] == ("cat", "ball")


def test_labels_are_shared_by_two_things():
    found = labels(SceneJudge(), answers([CAT, PAIR]))
    classes = SceneJudge.CLASSES["thing"]
    assert found["thing"][0, classes.index("cat")] == 1 and found["thing"][0].sum() == 1
    assert found["thing"][1, classes.index("cat")] == found["thing"][1, classes.index("ball")] == 0.5
    assert found["color"].sum() == 0 and found["place"].sum() == 2


def test_examples_answer_to_the_classes():
    pictures, truth = SceneJudge.examples(random.Random(0), 60)
    assert pictures.shape == (60, 3, 128, 128)
    words = {
        word
        for answer in truth
        for word in ([answer["thing"]] if isinstance(answer["thing"], str) else answer["thing"])
    }
    assert words <= {*SHAPES, *LEARNED}
    assert all(target.sum(dim=1).max() <= 1 for target in labels(SceneJudge(), truth).values())


def test_an_untrained_judge_is_right_by_chance_only():
    torch.manual_seed(0)
    judge = SceneJudge().eval()
    found = accuracy(judge, 100, seed=1)
    assert found["thing"] < 0.25 and set(found) == set(SceneJudge.CLASSES)


def test_right_answers_are_counted_where_they_were_asked():
    torch.manual_seed(0)
    judge, pictures = SceneJudge().eval(), torch.rand(2, 3, 128, 128)
    seen = judge.see(pictures)
    pair = judge.see_things(pictures, 2)[1]
    found = right(judge, pictures, [{**seen[0]}, {"thing": tuple(pair), "place": "nowhere"}])
    assert found == [dict.fromkeys(SceneJudge.CLASSES, True), {"place": False, "pair": True}]
    assert shares(found) == {"thing": 1, "color": 1, "place": 0.5, "background": 1, "look": 1, "pair": 1}
