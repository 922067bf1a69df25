"""The world with things in it: what a view says is what its picture shows."""

from __future__ import annotations

import math
import random
import re

import pytest
import torch

from miniature import looks, places, things, world
from miniature.scene import (
    PHRASINGS,
    TILT,
    Actor,
    View,
    describe,
    object_mask,
    prompt,
    random_prompt,
    random_view,
    render,
    shape_view,
)

MEADOW = View((Actor("cat"),))


def views(count: int, seed: int = 0) -> list[View]:
    rng = random.Random(seed)
    return [random_view(rng, kinds=things.NAMES) for _ in range(count)]


def center(mask: torch.Tensor) -> tuple[float, float]:
    axis, total = torch.arange(world.SIZE) + 0.5, mask.sum()
    return ((mask.sum(0) * axis).sum() / total).item(), ((mask.sum(1) * axis).sum() / total).item()


def test_same_seed_same_pictures():
    assert views(30, seed=3) == views(30, seed=3) != views(30, seed=4)
    assert torch.equal(render(views(12)), render(views(12)))


def test_pictures_are_in_range_and_differ():
    pictures = render(views(80))
    assert pictures.shape == (80, 3, world.SIZE, world.SIZE) and pictures.dtype == torch.float32
    assert pictures.min() >= 0 and pictures.max() <= 1
    assert len({picture.numpy().tobytes() for picture in pictures}) == 80


@pytest.mark.parametrize("kind", things.NAMES)
def test_a_thing_has_its_area_and_its_center(kind):
    """However it is tilted, mirrored and squashed: so one thing can take the place of another."""
    for attributes in ({}, {"angle": 0.3}, {"mirrored": True}, {"stretch": 0.8, "angle": -0.2, "mirrored": True}):
        mask = object_mask([View((Actor(kind, x=61.2, y=66.7, radius=27, **attributes),))])[0, 0]
        assert mask.sum().item() == pytest.approx(things.AREA * 27**2, rel=0.02)
        assert center(mask) == pytest.approx((61.2, 66.7), abs=0.4)


def test_things_are_told_apart_by_their_pictures():
    pictures = render([View((Actor(kind, radius=36),), "plain", "white") for kind in things.NAMES])
    for i, name in enumerate(things.NAMES):
        for j in range(i):
            assert (pictures[i] - pictures[j]).abs().sum() > 1500, (name, things.NAMES[j])


def test_mirroring_mirrors():
    view = View((Actor("car", x=64, y=64),), "plain", "white")
    plain, mirrored = render([view, view.with_actor(mirrored=True)])
    assert torch.allclose(plain.flip(-1), mirrored, atol=1e-3) and not torch.allclose(plain, mirrored, atol=0.1)


def test_stretch_makes_it_taller_and_narrower():
    squat, tall = object_mask([View((Actor("apple", radius=30, stretch=s),)) for s in (0.7, 1.4)])[:, 0] > 0.5
    extent = lambda mask, dim: int(mask.any(dim).sum())
    assert extent(tall, 1) > 1.2 * extent(squat, 1) and extent(tall, 0) < extent(squat, 0) / 1.2


@pytest.mark.parametrize("color", things.THING_COLORS)
def test_things_in_colors_show_them(color):
    named = torch.tensor(world.COLORS[color]).view(3, 1, 1) / 255
    for kind in (name for name, thing in things.THINGS.items() if thing.colors):
        view = View((Actor(kind, color, radius=38),), "plain", "white")
        near = (render([view])[0] - named).abs().amax(dim=0) < 0.02
        assert near.sum() > 0.15 * object_mask([view]).sum(), (color, kind)


def test_the_nearer_actor_hides_the_farther_one():
    view = View((Actor("cat", x=60, y=64), Actor("ball", x=68, y=64)))
    far, near = object_mask([view], 0)[0], object_mask([view], 1)[0]
    assert (far + near).max() <= 1 + 1e-5 and far.sum() < object_mask([MEADOW])[0].sum()
    assert torch.equal(near, object_mask([View(view.actors[1:])])[0])


def test_only_the_thing_covers_the_place():
    for place in places.PLACES:
        view = View((Actor("turtle"),), place)
        shown, empty = render([view, View((), place)])
        outside = object_mask([view])[0, 0] == 0
        assert torch.equal(shown[:, outside], empty[:, outside])
        assert not torch.allclose(shown, empty, atol=0.1)


def test_places_and_looks_differ():
    for same in ([View((), place) for place in places.PLACES], [MEADOW.edited(look=look) for look in looks.LOOKS]):
        pictures = render(same)
        for i in range(len(same)):
            for j in range(i):
                assert (pictures[i] - pictures[j]).abs().mean() > 0.04, (same[i], same[j])


@pytest.mark.parametrize("place", places.PLACES)
def test_near_layers_move_faster_than_far_ones(place):
    """The ground follows the pan pixel for pixel, the sky does not."""
    before, after = render([View((), place, camera=places.Camera(pan_x=x)) for x in (40.0, 48.0)])
    ground, sky = (slice(None), slice(-10, None)), (slice(None), slice(0, 40))
    if place != "night sky":  # its ground is not quite near
        assert torch.allclose(before[ground][..., 8:], after[ground][..., :-8], atol=1e-3)
    assert (before[sky][..., 8:] - after[sky][..., :-8]).abs().mean() > (before[sky] - after[sky]).abs().mean()


def test_zoom_enlarges_the_pattern():
    view = View((), "striped", "red")
    near, far = (render([view.edited(camera=places.Camera(zoom=zoom))])[0, 0, 64] for zoom in (1.5, 0.75))
    edges = lambda row: int((row > row.mean()).diff().sum())
    assert edges(far) > 1.5 * edges(near)


def test_looks_do_what_they_say():
    picture = render([View((Actor("car", "red"),))])[0]
    sketch, pixels, night, sepia = (looks.apply(look, picture) for look in tuple(looks.LOOKS)[1:])
    assert (sketch[0] - sketch[2]).abs().max() < 0.05  # hardly any colour
    blocks = pixels.unfold(1, looks.BLOCK, looks.BLOCK).unfold(2, looks.BLOCK, looks.BLOCK).flatten(3)
    assert torch.equal(blocks.amin(-1), blocks.amax(-1))
    assert night.mean() < 0.5 * picture.mean() and night[2].mean() > night[0].mean()
    assert (sepia[0] >= sepia[2]).all()


def test_random_views_keep_to_the_rules():
    some = views(400)
    assert {actor.kind for view in some for actor in view.actors} == {*things.NAMES, *world.SHAPES}
    assert {view.place for view in some} == {*places.PLACES, *world.PATTERNS}
    assert {view.look for view in some} == {*looks.LOOKS} and {len(view.actors) for view in some} == {1, 2}
    for view in some:
        for actor in view.actors:
            assert actor.kind in world.SHAPES or abs(actor.angle) <= TILT
            assert actor.color != view.background or actor.color is None


def test_prompts_name_everything_with_the_right_article():
    cat, car = Actor("cat"), Actor("car", "orange")
    assert prompt(View((cat,))) == "a cat in a meadow"
    assert (
        prompt(View((cat, car), "beach", look="pencil sketch"))
        == "a pencil sketch of a cat and an orange car on a beach"
    )
    assert prompt(shape_view("star", "orange", "striped", "blue")) == "an orange star on a striped blue background"
    assert len(set(PHRASINGS)) >= 10
    rng = random.Random(0)
    for view in views(500):
        for text in (prompt(view), random_prompt(view, rng)):
            for actor in view.actors:
                assert describe(actor).split(" ", 1)[1] in text
            assert view.place == "plain" or view.place in text
            assert view.background is None or f"{view.background} background" in text
            assert not re.search(r"\ba (?=[aeiou])|\ban (?=[^aeiou])|  |[{}]", text), text


def test_edited_views_keep_the_pose():
    view = views(1)[0]
    after = view.with_actor(kind="fox", color=None).edited(place="sea", background=None)
    before, now = view.actors[0], after.actors[0]
    assert now == before.edited(kind="fox", color=None) and after.camera == view.camera


def test_names_outside_the_world_are_refused():
    for view, message in (
        (View((Actor("dragon"),)), "unknown thing 'dragon'"),
        (View((Actor("cat", "blue"),)), "a cat comes in its own colour only"),
        (View((Actor("car", "white"),)), "a car cannot be white"),
        (View((), "moon"), "unknown place 'moon'"),
        (View((), "striped"), "needs a colour"),
        (View((), look="cubist"), "unknown look 'cubist'"),
    ):
        with pytest.raises(ValueError, match=message):
            render([view])


def test_a_thing_beyond_the_edge_is_cut():
    mask = object_mask([View((Actor("elephant", x=0, y=64),))])[0, 0]
    whole = object_mask([View((Actor("elephant", x=64, y=64),))])[0, 0]
    assert torch.allclose(mask[:, :64], whole[:, 64:], atol=1e-3)
    assert object_mask([View((Actor("elephant", x=-200, y=64),))]).sum() == 0
    assert math.isfinite(render([View((Actor("elephant", x=-200, y=64),))]).sum().item())
