"""The judge, with the weights the pack ships: it must be right before it may judge a model; and the sampler."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F

from miniature.clips import quickstart_clip, quickstart_truth
from miniature.evaluate import ddim
from miniature.judge import CLASSES, FILE, Judge
from miniature.train_judge import accuracy, blur
from miniature.world import random_scene, render


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.load()


def test_unseen_renders(judge):
    assert min(accuracy(judge, 300, seed=777_000).values()) >= 0.99


def test_soft_renders(judge):
    assert min(accuracy(judge, 150, seed=888_000, spoil=lambda x: blur(x, 2.0)).values()) >= 0.95


def test_wrong_labels_are_not_found(judge):
    """The accuracy is earned: against the labels of other scenes it falls to chance."""
    rng = random.Random(5)
    scenes = [random_scene(rng) for _ in range(100)]
    others = [random_scene(rng) for _ in range(100)]
    seen = judge.see(render(scenes))
    for name, classes in CLASSES.items():
        assert sum(saw[name] == getattr(other, name) for saw, other in zip(seen, others)) < 100 * 2.5 / len(classes)


def test_every_frame_of_the_quick_start(judge):
    for scenes in (quickstart_clip(), quickstart_truth()):
        for scene, seen in zip(scenes, judge.see(render(scenes))):
            assert seen == {name: getattr(scene, name) for name in CLASSES}


def test_probabilities_add_up_and_agree_with_see(judge):
    pictures = render(quickstart_clip())
    probabilities = judge.probabilities(pictures)
    for name, classes in CLASSES.items():
        assert probabilities[name].shape == (len(pictures), len(classes))
        assert torch.allclose(probabilities[name].sum(dim=1), torch.ones(len(pictures)), atol=1e-5)
        best = [classes[i] for i in probabilities[name].argmax(dim=1)]
        assert best == [seen[name] for seen in judge.see(pictures)]


@pytest.mark.parametrize("size", [64, 96, 256, 512])
def test_other_sizes_are_resized(judge, size):
    pictures = render(quickstart_clip())
    resized = F.interpolate(pictures, size=(size, size), mode="bilinear", antialias=True)
    assert judge.see(resized) == judge.see(pictures)


def test_other_layouts_are_refused(judge):
    with pytest.raises(ValueError, match="f 3 h w"):
        judge.see(torch.zeros(4, 128, 128, 3))


def test_missing_weights_say_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="train_judge"):
        Judge.load(tmp_path / "none.safetensors")


def test_size_of_the_weights():
    assert FILE.stat().st_size < 1.5e6
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
