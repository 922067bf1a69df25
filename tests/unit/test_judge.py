"""The judge, with the weights the pack ships: it must be right before it may judge a model; and the sampler."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F

from miniature.clips import EDITS, bundled_clip, bundled_truth, square_clip
from miniature.drawing import ddim
from miniature.judge import CLASSES, FILE, Judge, answers, examples, right, shares
from miniature.scene import Actor, View, random_view, render
from miniature.things import LEARNED
from miniature.train_judge import accuracy, blur, labels
from miniature.world import SHAPES

CAT = View((Actor("cat"),), "beach", look="night")
CAR = View((Actor("car", "blue"),), "striped", "red")
PAIR = View((Actor("cat"), Actor("ball")), "snow", look="sepia")


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.load()


def test_unseen_renders(judge):
    assert min(accuracy(judge, 300, seed=777_000).values()) >= 0.99


def test_soft_renders(judge):
    assert min(accuracy(judge, 150, seed=888_000, spoil=lambda x: blur(x, 2.0)).values()) >= 0.95


def test_wrong_labels_are_not_found(judge):
    """The accuracy is earned: against the answers to other pictures it falls to chance."""
    rng = random.Random(5)
    views, others = ([random_view(rng) for _ in range(100)] for _ in range(2))
    found = shares(right(judge, render(views), answers(others)))
    assert found["thing"] < 0.25 and found["color"] < 0.35 and found["background"] < 0.4 and found["place"] < 0.4


@pytest.mark.parametrize("workflow", [None, *EDITS])
def test_every_frame_of_the_bundled_clip_and_its_edits(judge, workflow):
    views = bundled_truth(workflow) if workflow else bundled_clip()
    assert all(all(one.values()) for one in right(judge, render(views), answers(views)))


def test_probabilities_add_up_and_agree_with_see(judge):
    pictures = render(square_clip())
    probabilities = judge.probabilities(pictures)
    for name, classes in CLASSES.items():
        assert probabilities[name].shape == (len(pictures), len(classes))
        assert torch.allclose(probabilities[name].sum(dim=1), torch.ones(len(pictures)), atol=1e-5)
        best = [classes[i] for i in probabilities[name].argmax(dim=1)]
        assert best == [seen[name] for seen in judge.see(pictures)]


@pytest.mark.parametrize("size", [64, 96, 256, 512])
def test_other_sizes_are_resized(judge, size):
    pictures = render(square_clip())
    resized = F.interpolate(pictures, size=(size, size), mode="bilinear", antialias=True)
    assert judge.see(resized) == judge.see(pictures)


def test_other_layouts_are_refused(judge):
    with pytest.raises(ValueError, match="f 3 h w"):
        judge.see(torch.zeros(4, 128, 128, 3))


def test_missing_weights_say_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="train_judge"):
        Judge.load(tmp_path / "none.safetensors")


def test_size_of_the_weights():
    assert FILE.stat().st_size < 2e6
    assert sum(p.numel() for p in Judge().parameters()) < 1_000_000


def test_ddim_finds_the_only_picture_there_is():
    """Where all data is one latent, the exact noise prediction is known, and sampling must end at that latent."""
    beta = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    signal = (1 - beta).cumprod(0)
    generator = torch.Generator().manual_seed(0)
    only = torch.randn(1, 4, 16, 16, generator=generator, dtype=torch.float64)
    visited = []

    def noise(x: torch.Tensor, t: int) -> torch.Tensor:
        visited.append(t)
        return (x - signal[t].sqrt() * only) / (1 - signal[t]).sqrt()

    start = torch.randn(3, 4, 16, 16, generator=generator, dtype=torch.float64)
    assert torch.allclose(ddim(noise, start, signal), only.expand_as(start), atol=1e-9)
    assert visited == list(range(981, 0, -20)) and len(visited) == 50


def test_questions_without_an_answer_are_not_asked():
    assert answers([CAT]) == [{"thing": "cat", "place": "beach", "look": "night"}]
    assert answers([CAR]) == [
        {"thing": "car", "place": "striped", "look": "normal", "background": "red", "color": "blue"}
    ]
    assert "color" not in answers([CAR.edited(place="snow", background=None, look="sepia")])[0]  # it cannot be seen
    assert answers([PAIR])[0]["thing"] == ("cat", "ball")


def test_labels_are_shared_by_two_things():
    found = labels(answers([CAT, PAIR]))
    classes = CLASSES["thing"]
    assert found["thing"][0, classes.index("cat")] == 1 and found["thing"][0].sum() == 1
    assert found["thing"][1, classes.index("cat")] == found["thing"][1, classes.index("ball")] == 0.5
    assert found["color"].sum() == 0 and found["place"].sum() == 2


def test_examples_answer_to_the_classes():
    pictures, truth = examples(random.Random(0), 60)
    assert pictures.shape == (60, 3, 128, 128)
    words = {
        word
        for answer in truth
        for word in ([answer["thing"]] if isinstance(answer["thing"], str) else answer["thing"])
    }
    assert words <= {*SHAPES, *LEARNED}
    assert all(target.sum(dim=1).max() <= 1 for target in labels(truth).values())


def test_an_untrained_judge_is_right_by_chance_only():
    torch.manual_seed(0)
    judge = Judge().eval()
    found = accuracy(judge, 100, seed=1)
    assert found["thing"] < 0.25 and set(found) == set(CLASSES)


def test_right_answers_are_counted_where_they_were_asked():
    torch.manual_seed(0)
    judge, pictures = Judge().eval(), torch.rand(2, 3, 128, 128)
    seen = judge.see(pictures)
    pair = {CLASSES["thing"][i] for i in judge.probabilities(pictures)["thing"][1].topk(2).indices}
    found = right(judge, pictures, [{**seen[0]}, {"thing": tuple(pair), "place": "nowhere"}])
    assert found == [dict.fromkeys(CLASSES, True), {"place": False, "pair": True}]
    assert shares(found) == {"thing": 1, "color": 1, "place": 0.5, "background": 1, "look": 1, "pair": 1}
