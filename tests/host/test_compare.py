"""EI2 Compare and EI2 Recipe on the host."""

from __future__ import annotations

import time

import pytest
import torch

pytestmark = pytest.mark.host

BAR = 20  # pixels of a label's strip above small videos


@pytest.fixture
def compare(pack, tmp_path):
    """Runs the node: `compare(layout, video_1, video_2, …, labels=…)`."""
    import folder_paths

    def compare(layout, *videos, labels="source\nedit"):
        inputs = {f"video_{i}": video for i, video in enumerate(videos, 1)}
        return pack("nodes.compare").Compare.execute(labels, layout, **inputs)

    before = folder_paths.get_temp_directory()
    folder_paths.set_temp_directory(str(tmp_path))
    yield compare
    folder_paths.set_temp_directory(before)


def video(value: float, frames: int = 5, height: int = 64, width: int = 64) -> torch.Tensor:
    """One colour, a little brighter in each frame."""
    return (value + 0.01 * torch.arange(frames)).view(-1, 1, 1, 1).expand(frames, height, width, 3).clone()


def test_side_by_side_keeps_every_pixel_under_its_label(compare):
    a, b = video(0.4), video(0.8)
    images = compare("side by side", a, b).args[0]
    assert images.shape == (5, BAR + 64, 64 + 2 + 64, 3)
    assert torch.equal(images[:, BAR:, :64], a) and torch.equal(images[:, BAR:, 66:], b)
    assert images[0, :BAR, :64].max() > 0.7, "no label"
    plain = compare("side by side", a, b, labels=" ").args[0]
    assert plain.shape == (5, 64, 130, 3)


def test_grid_fills_rows_in_reading_order(compare):
    videos = [video(value) for value in (0.2, 0.4, 0.6)]
    images = compare("grid", *videos, labels="").args[0]
    assert images.shape == (5, 64 + 2 + 64, 64 + 2 + 64, 3)
    assert torch.equal(images[:, :64, 66:], videos[1]) and torch.equal(images[:, 66:, :64], videos[2])
    assert images[:, 66:, 66:].max() < 0.2


def test_wipe_uncovers_one_after_the_other(compare):
    a, b, c = videos = [video(value) for value in (0.2, 0.4, 0.6)]
    images = compare("wipe", *videos, labels="").args[0]
    assert images.shape == a.shape
    assert torch.equal(images[0], a[0]) and torch.equal(images[2], b[2]) and torch.equal(images[4], c[4])
    assert torch.equal(images[1, :, :31], b[1, :, :31]) and torch.equal(images[1, :, 33:], a[1, :, 33:])
    with pytest.raises(ValueError, match="connect at least two"):
        compare("wipe", a)
    with pytest.raises(ValueError, match="3 videos have only 2 frames: choose another layout"):
        compare("wipe", *(one[:2] for one in videos))


def test_other_sizes_fit_and_the_shortest_sets_the_length(compare):
    small = video(0.8, frames=3, height=16, width=32)
    images = compare("side by side", video(0.4), small, labels="").args[0]
    assert images.shape == (3, 64, 130, 3)
    right = images[:, :, 66:]
    assert right[:, 16:48].sub(small[:, :1, :1]).abs().max() < 1e-3  # in the middle, twice as large
    assert right[:, :16].max() < 0.2 and right[:, 48:].max() < 0.2


def test_sizes_are_even_for_video_codecs(compare):
    assert compare("side by side", video(0.4, 2, 33, 35)).args[0].shape[1:3] == (BAR + 33 + 1, 36)


def test_contact_sheet_has_at_most_eight_frames_of_at_most_256_pixels(compare):
    found = compare("side by side", video(0.3, 12, 128, 512), video(0.6, 12, 128, 512))
    sheet = found.args[1]
    assert sheet.shape[0] == 1 and sheet.shape[1] == BAR + 2 * (64 + 4)
    assert 8 * 260 < sheet.shape[2] < 9 * 260
    assert sheet[0, BAR + 32, -10, 0] == pytest.approx(0.3 + 0.11, abs=1e-3)  # the last frame
    assert len(found.ui["images"]) == 1


def test_labels(pack):
    label = pack("nodes.compare").label_of
    assert [label("source\n\nc", i) for i in range(4)] == ["source", "", "c", "video 4"]
    assert label("source\nedit\n", 2) == "video 3" and label("\n", 0) == ""
    assert [label("source\n\n\n", i) for i in range(4)] == ["source", "", "", "video 4"]
    assert label("a\u2029b\r\x85c\r\nd", 0) == "a b c"  # Pillow fails on some separators


@pytest.mark.parametrize("label", ["Tune-A-Video", "reconstruction"])
def test_labels_shrink_to_fit_above_a_small_video(pack, label):
    labels, layouts = pack("nodes.pictures.labels"), pack("nodes.pictures.layouts")
    room = 64 - 2 * labels.MARGIN
    size = layouts._letters(BAR, [label, "edit"], room)
    assert size < layouts._letters(BAR, ["edit"], room) == 13
    assert labels.shortened(label, labels.font_of(label, size), room) == label


def test_long_labels_end_in_an_ellipsis(pack):
    labels = pack("nodes.pictures.labels")
    font = labels.font_of("a", 13)
    short = labels.shortened("a red circle on a dotted white background", font, 100)
    assert short.endswith("…") and font.getlength(short) <= 100 and len(short) > 8
    assert labels.shortened("edit", font, 100) == "edit" and labels.shortened("edit", font, 1) == ""
    strip = labels.strip(20, 100, 13, left="left", right="right")
    assert strip[:, :40].max() > 0.7 and strip[:, 60:].max() > 0.7
    cell = labels.block(60, 80, 13, "a red circle on a dotted white background and so on and on")
    assert all(cell[top : top + 20].max() > 0.7 for top in (0, 20, 40))
    seeds = [labels.block(60, 80, 13, f"edit_cfg7.5_steps300_seed{i}") for i in (1, 2)]
    assert not torch.equal(*seeds)  # cut where it has to be, not only at spaces


def test_an_unknown_layout_is_refused(compare):
    with pytest.raises(ValueError, match="choose one of side by side, grid, wipe"):
        compare("heap", video(0.1))


def test_every_recipe_gives_values_that_the_nodes_take(pack):
    recipe = pack("nodes.recipe")
    tune = {one.id: one for one in pack("nodes.one_shot_tune").OneShotTune.define_schema().inputs}
    control = {one.id: one for one in pack("nodes.attention_control").AttentionControl.define_schema().inputs}
    edit = {one.id: one for one in pack("nodes.edit_sample").EditSample.define_schema().inputs}
    wanted = [tune["steps"], tune["learning_rate"], edit["cfg"], control["cross_replace"], control["self_replace"]]
    outputs = recipe.RecipeNode.define_schema().outputs
    assert [one.id for one in wanted] == [one.display_name for one in outputs[:-1]]
    for name in recipe.RECIPES:
        for kind in recipe.MODEL_KINDS:
            *values, note = recipe.RecipeNode.execute(name, kind).args
            for value, one in zip(values, wanted):
                assert one.min <= value <= one.max and f"{one.id} {value:g}" in note, (name, kind, one.id)
            assert "When it fails" in note and kind in note


def test_an_unknown_recipe_is_refused(pack):
    node = pack("nodes.recipe").RecipeNode
    with pytest.raises(ValueError, match="There is no recipe 'soup': choose one of recolour"):
        node.execute("soup", "Stable Diffusion")
    assert "There is no model_kind" in node.validate_inputs("subtle", "Flux")
    assert node.validate_inputs(None, None) is True


def test_labels_without_end_take_no_time(pack, compare):
    """Dropping one letter after the other took minutes; a wipe draws its labels anew in every frame."""
    labels = pack("nodes.pictures.labels")
    begin = time.monotonic()
    for text in ("w" * 10_000, "a b " * 2500, "猫" * 10_000):
        short = labels.shortened(text, labels.font_of(text, 13), 100)
        assert short.endswith("…") and labels.font_of(text, 13).getlength(short) <= 100
        assert labels.block(60, 80, 13, text).shape == (60, 80, 3)
    video = torch.rand(30, 32, 32, 3)
    compare("wipe", video, video, labels="w" * 9000)
    assert time.monotonic() - begin < 20


def test_a_shortened_label_is_as_long_as_fits(pack):
    labels = pack("nodes.pictures.labels")
    font = labels.font_of("a", 13)
    text = "a_red_circle_on_a_dotted_white_background"
    for room in range(10, 200, 7):
        short = labels.shortened(text, font, room)
        letters = max(0, len(short) - 1)
        assert font.getlength(short) <= room < font.getlength(text[: letters + 1] + "…")


def test_a_wipe_of_one_video_is_refused_before_the_pictures_are_scaled(pack):
    with pytest.raises(ValueError, match="connect at least two"):
        pack("nodes.compare").Compare.execute("", "wipe", video_1=torch.rand(2, 8, 8, 3))
