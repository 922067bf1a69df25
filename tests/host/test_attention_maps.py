"""The picture of attention maps: what is bright, where, and how it is labelled."""

from __future__ import annotations

import warnings

import pytest
import torch

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]


@pytest.fixture(scope="module")
def module(pack):
    return pack("nodes.pictures.attention_maps")


@pytest.fixture(scope="module")
def draw(module):
    """Drawing without any warning of the plotting library."""

    def draw(maps, words):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return module.draw_maps(maps, words)

    return draw


def hot(word: int, frame: int, y: int, x: int, size=(3, 4, 8, 8), value=1.0) -> torch.Tensor:
    """Maps that are zero but for one cell."""
    maps = torch.zeros(size)
    maps[word, frame, y, x] = value
    return maps


def box(image: torch.Tensor) -> tuple[float, float, float, float]:
    """Centre and size of what is brightest, pixels: y, x, height, width. Text is darker and grey."""
    red, green, blue = image[0].unbind(-1)
    ys, xs = ((red > 0.95) & (green > 0.9) & (blue > 0.8)).nonzero().unbind(-1)
    (top, bottom), (left, right) = ys.aminmax(), xs.aminmax()
    return *((a + b).item() / 2 for a, b in ((top, bottom), (left, right))), *(
        (b - a).item() + 1 for a, b in ((top, bottom), (left, right))
    )


WORDS = ["a", "red", "circle"]


def test_an_image_in_the_dark(draw):
    image = draw(torch.rand(3, 4, 8, 8, generator=torch.Generator().manual_seed(0)), WORDS)
    assert image.ndim == 4 and image.shape[0] == 1 and image.shape[3] == 3 and image.dtype == torch.float32
    assert image.min() >= 0 and image.max() <= 1
    assert torch.allclose(image[0, 0, 0], torch.tensor(0x20 / 255))


def test_every_cell_has_its_place(draw):
    """A row per word, a column per frame; cells are squares, and a map of 8 cells lies within the pitch."""
    first = box(draw(hot(0, 0, 0, 0), WORDS))
    cell = first[2]
    assert abs(first[3] - cell) <= 1 and cell > 8
    below, right = box(draw(hot(0, 0, 1, 0), WORDS)), box(draw(hot(0, 0, 0, 1), WORDS))
    assert below[0] - first[0] == pytest.approx(cell, abs=1) and below[1] == first[1]
    assert right[1] - first[1] == pytest.approx(cell, abs=1) and right[0] == first[0]
    row, column = box(draw(hot(1, 0, 0, 0), WORDS)), box(draw(hot(0, 1, 0, 0), WORDS))
    pitch = row[0] - first[0]
    assert row[1] == first[1] and 8 * cell < pitch < 10 * cell
    assert column[0] == first[0] and column[1] - first[1] == pytest.approx(pitch, abs=1)
    last = box(draw(hot(2, 3, 7, 7), WORDS))
    assert last[0] - first[0] == pytest.approx(2 * pitch + 7 * cell, rel=0.02)
    assert last[1] - first[1] == pytest.approx(3 * pitch + 7 * cell, rel=0.02)


def test_wide_maps_keep_their_shape(draw):
    _, _, height, width = box(draw(hot(0, 0, 2, 3, size=(1, 2, 4, 9)), ["cat"]))
    assert height == pytest.approx(width, abs=1)


def test_a_row_is_scaled_by_its_own_maximum_over_all_frames(draw):
    maps = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).half().float()
    scaled = maps * torch.tensor([2.0**-14, 1.0]).view(2, 1, 1, 1)
    assert torch.equal(draw(maps, WORDS[:2]), draw(scaled, WORDS[:2]))
    dimmed = maps * torch.tensor([1.0, 0.5, 0.5]).view(1, 3, 1, 1)
    assert not torch.equal(draw(maps, WORDS[:2]), draw(dimmed, WORDS[:2]))


def test_maps_without_any_attention(draw):
    assert draw(torch.zeros(2, 2, 4, 4), WORDS[:2]).isfinite().all()


@pytest.mark.parametrize(
    "frames, shown",
    [(1, [0]), (3, [0, 1, 2]), (8, list(range(8))), (9, [0, 1, 2, 3, 5, 6, 7, 8]), (24, [0, 3, 7, 10, 13, 16, 20, 23])],
)
def test_chosen_frames(frames, shown, module):
    assert module.chosen_frames(frames) == shown


def test_many_frames(draw):
    """Those that are drawn are the chosen ones."""
    size = (1, 24, 4, 4)
    seen = box(draw(hot(0, 7, 0, 0, size), ["cat"]))
    first = box(draw(hot(0, 0, 0, 0, size), ["cat"]))
    next_one = box(draw(hot(0, 3, 0, 0, size), ["cat"]))
    assert seen[1] - first[1] == pytest.approx(2 * (next_one[1] - first[1]), abs=2)
    assert torch.equal(draw(hot(0, 1, 0, 0, size), ["cat"]), draw(hot(0, 2, 3, 3, size), ["cat"]))  # neither is drawn


def test_many_words(draw, module):
    """The first are drawn, the others named below."""
    words = [f"word{i}" for i in range(40)]
    maps = torch.rand(40, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    some, more, most = (draw(maps[:n], words[:n]) for n in (16, 17, 40))
    assert some.shape[1] < more.shape[1] < most.shape[1] < 1.2 * some.shape[1]
    assert some.shape[2] == more.shape[2] == most.shape[2]
    assert not torch.equal(draw(maps[:17], [*words[:16], "another"]), more)


def test_labels(draw):
    """Long words are cut, and dollars are no formula."""
    maps = torch.rand(2, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    long = draw(maps, ["donaudampfschifffahrtsgesellschaft", "a"])
    assert torch.equal(long, draw(maps, ["donaudampfschifffahrt", "a"]))
    assert not torch.equal(long, draw(maps, ["donau", "a"]))
    draw(maps, [r"$\frac$", "$"])
    assert draw(maps, ["$$$$", "a"]).shape == draw(maps, ["aaaa", "a"]).shape  # drawn as they are


def test_what_cannot_be_drawn_is_refused(draw):
    maps = torch.rand(2, 2, 4, 4)
    with pytest.raises(ValueError, match=r"Maps of shape \[2, 2, 4, 4\] do not belong to 3 words"):
        draw(maps, WORDS)
    with pytest.raises(ValueError, match=r"Maps of shape \[0, 2, 4, 4\] do not belong to 0 words"):
        draw(maps[:0], [])
    maps[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinite"):
        draw(maps, WORDS[:2])


def test_letters_of_other_scripts_get_a_font_that_has_them(pack, draw):
    fonts = pack("nodes.pictures.fonts")
    assert fonts.font_for("a red circle, café") == fonts.FONT and not fonts.font_advice(["a red circle"])
    if fonts.missing_letters("一只猫"):
        pytest.skip("This machine has no font with Chinese letters.")
    assert fonts.font_for("一只猫 cat") != fonts.FONT and not fonts.font_advice(["一只猫"])
    maps = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    assert draw(maps, ["猫", "red"]).shape[-1] == 3


def test_a_machine_without_such_a_font_says_so(pack, monkeypatch):
    fonts = pack("nodes.pictures.fonts")
    monkeypatch.setattr(fonts, "_large_fonts", lambda: ())
    fonts._chosen.cache_clear()
    assert fonts.missing_letters("一只 cat 一") == "一只"
    advice = fonts.font_advice(["source", "一只", "\u200b"])
    assert advice.startswith("No font of this machine has the letters 一只, so they are drawn as boxes: install one")
    fonts._chosen.cache_clear()


def test_very_many_words_do_not_make_an_endless_picture(draw):
    assert draw(torch.rand(800, 1, 2, 2), [f"word{i}" for i in range(800)]).shape[1] < 6000
