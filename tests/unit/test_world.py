"""The rendered world: what a scene says is what its picture shows."""

from __future__ import annotations

import math
import random
import re

import pytest
import torch

from miniature.clips import (
    QUICKSTART_SOURCE_PROMPT,
    QUICKSTART_TARGET_PROMPT,
    moving,
    quickstart_clip,
    quickstart_truth,
    read_video,
    write_clip,
    write_video,
)
from miniature.world import (
    COLORS,
    PATTERNS,
    PERIOD,
    PHRASINGS,
    SHAPES,
    SIZE,
    Scene,
    object_mask,
    prompt,
    random_prompt,
    random_scene,
    render,
)

# areas in units of the squared radius, by geometry
AREAS = {
    "circle": math.pi * 0.88**2,
    "ring": math.pi * (0.93**2 - 0.43**2),
    "square": (2 * 0.76) ** 2,
    "triangle": 3 * math.sqrt(3) / 4,
    "star": 5 * 0.45 * math.sin(math.pi / 5),
}


def scenes(count: int, seed: int = 0) -> list[Scene]:
    rng = random.Random(seed)
    return [random_scene(rng) for _ in range(count)]


def test_same_seed_same_pictures():
    assert scenes(20, seed=3) == scenes(20, seed=3)
    assert scenes(20, seed=3) != scenes(20, seed=4)
    assert torch.equal(render(scenes(20)), render(scenes(20)))


def test_pictures_are_in_range_and_differ():
    pictures = render(scenes(40))
    assert pictures.shape == (40, 3, SIZE, SIZE) and pictures.dtype == torch.float32
    assert pictures.min() >= 0 and pictures.max() <= 1
    assert len({picture.numpy().tobytes() for picture in pictures}) == 40


def test_a_scene_renders_alike_alone_and_in_a_batch():
    batch = scenes(8)
    assert torch.equal(torch.cat([render([scene]) for scene in batch]), render(batch))


@pytest.mark.parametrize("shape", AREAS)
@pytest.mark.parametrize("angle", [0.0, 0.7])
def test_area_of_each_shape(shape, angle):
    scene = Scene(shape, "red", "plain", "blue", x=61.3, y=66.8, radius=40, angle=angle)
    assert object_mask([scene]).sum().item() == pytest.approx(AREAS[shape] * 40**2, rel=0.02)


@pytest.mark.parametrize("shape", SHAPES)
def test_shape_lies_within_its_circle_and_follows_its_centre(shape):
    a = Scene(shape, "red", "plain", "blue", x=50, y=60, radius=32)
    axis = torch.arange(SIZE) + 0.5
    distance = torch.hypot(axis.view(1, -1) - a.x, axis.view(-1, 1) - a.y)
    mask = object_mask([a])[0, 0]
    assert mask[distance > 1.15 * a.radius].max() == 0  # a square's corners reach a little beyond
    moved = object_mask([a.edited(x=a.x + 20, y=a.y + 10)])[0, 0]
    assert torch.allclose(moved[10:, 20:], mask[:-10, :-20], atol=1e-4)


def test_shapes_are_told_apart_by_their_masks():
    masks = object_mask([Scene(shape, "red", "plain", "blue", radius=40) for shape in SHAPES])
    for i in range(len(SHAPES)):
        for j in range(i):
            assert (masks[i] - masks[j]).abs().sum() > 400, (SHAPES[i], SHAPES[j])


def test_mask_range_and_share_of_covered_pixels():
    masks = object_mask(scenes(50))
    assert masks.shape == (50, 1, SIZE, SIZE)
    assert masks.min() >= -1e-5 and masks.max() <= 1 + 1e-5
    share = (masks > 0.5).float().mean(dim=(1, 2, 3))
    assert share.min() > 0.02 and share.max() < 0.3


def test_object_and_background_have_the_named_colors():
    for scene, picture, mask in zip(scenes(60), render(scenes(60)), object_mask(scenes(60))):
        color = torch.tensor(COLORS[scene.color]) / 255
        ground = torch.tensor(COLORS[scene.background]) / 255
        inside, outside = mask[0] > 0.999, mask[0] < 0.001
        assert torch.allclose(picture[:, inside].mean(dim=1), color, atol=1e-3), scene
        named = (picture[:, outside] - ground.view(3, 1)).abs().amax(dim=0) < 1e-3
        share = named.float().mean().item()
        assert share == 1 if scene.pattern == "plain" else 0.3 < share < 0.9, scene


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_repeat_and_shift(pattern):
    a = Scene("circle", "red", pattern, "green")
    rows = [
        a.edited(offset_x=5, offset_y=9),
        a.edited(offset_x=5 + PERIOD, offset_y=9 - PERIOD),
        a.edited(offset_x=5 + PERIOD / 2, offset_y=9),
    ]
    same, period, half = render(rows)
    assert torch.allclose(same, period, atol=1e-4)
    assert torch.equal(same, half) == (pattern == "plain")


def test_window_is_the_crop_of_the_full_picture():
    some, corner = scenes(12), torch.tensor([[random.Random(i).randrange(64), (7 * i) % 64] for i in range(12)])
    full, crops = render(some), render(some, window=corner.float(), size=64)
    for picture, crop, (x, y) in zip(full, crops, corner.tolist()):
        assert torch.allclose(picture[:, y : y + 64, x : x + 64], crop, atol=1e-5)


def test_edited_keeps_the_placement():
    before = scenes(1)[0]
    after = before.edited(shape="ring" if before.shape != "ring" else "star", color=before.background)
    for name in ("pattern", "background", "x", "y", "radius", "angle", "offset_x", "offset_y"):
        assert getattr(after, name) == getattr(before, name)
    assert after.shape != before.shape and after.color != before.color


def test_prompts_name_every_attribute_with_the_right_article():
    scene = Scene("star", "orange", "striped", "blue")
    assert prompt(scene) == "an orange star on a striped blue background"
    assert (
        prompt(scene.edited(pattern="plain", background="orange", color="red")) == "a red star on an orange background"
    )
    rng = random.Random(0)
    for scene in scenes(200):
        for text in (random_prompt(scene, rng), *(prompt(scene, phrasing) for phrasing in PHRASINGS)):
            words = re.findall(r"\w+", text)
            assert {scene.shape, scene.color, scene.background} <= set(words)
            assert (scene.pattern in words) == (scene.pattern != "plain")
            assert not re.search(r"\ba (?=[aeiou])|\ban (?=[^aeiou])", text), text


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="unknown shape 'cube'"):
        render([Scene("cube", "red", "plain", "blue")])
    with pytest.raises(ValueError, match="unknown pattern 'wavy'"):
        render([Scene("star", "red", "wavy", "blue")])


def test_quickstart_clip_moves_and_its_truth_differs_only_where_it_should():
    clip, truth = quickstart_clip(), quickstart_truth()
    assert len(clip) == len(truth) == 12
    for a, b in zip(clip, truth):
        assert 38 <= a.x <= 90 and 38 <= a.y <= 90 and 30 <= a.radius <= 36
        assert a.shape != b.shape and a.color != b.color
        assert a == b.edited(shape=a.shape, color=a.color)
    steps = [math.hypot(b.x - a.x, b.y - a.y) for a, b in zip(clip, clip[1:])]
    assert min(steps) > 1 and sum(steps) > 60  # it never rests, and it crosses the picture
    assert clip[-1].angle - clip[0].angle > 1
    assert prompt(clip[0]) == QUICKSTART_SOURCE_PROMPT and prompt(truth[0]) == QUICKSTART_TARGET_PROMPT


def test_drift_moves_the_pattern_the_way_it_says():
    scene = Scene("circle", "red", "striped", "green")
    first, last = render(moving(scene, 2, [(64, 64)] * 4, drift=(8, 0)))
    assert torch.allclose(first[:, :20, :-8], last[:, :20, 8:], atol=1e-4)


def test_written_clip_reads_back_with_its_colors(tmp_path):
    path = tmp_path / "clip.mp4"
    write_clip(quickstart_clip(), path, fps=8)
    error = read_video(path) - render(quickstart_clip())
    assert -10 * error.square().mean().log10() >= 35
    assert error.mean(dim=(0, 2, 3)).abs().max() < 0.01  # no shift of tone


def test_odd_sizes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="even sizes"):
        write_video(torch.zeros(2, 3, 63, 64), tmp_path / "odd.mp4", fps=8)
