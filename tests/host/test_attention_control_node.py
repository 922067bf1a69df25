"""What EI2 Attention Control makes of two prompts, by examples worked out by hand, and how it reports that."""

from __future__ import annotations

import numpy as np
import pytest

from . import control_node
from .control_node import DEFAULTS, SOURCE

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]

node, clip = control_node.node, control_node.clip
LENGTH = 77


@pytest.fixture(scope="module")
def control(node, clip):
    """The node's outputs, the report as plain lines: `control(reweight="red: 2")` -> control, positive, report."""

    def control(source=SOURCE, target=DEFAULTS["target_prompt"], **changes):
        given = {**DEFAULTS, "clip": clip, "source_prompt": source, "target_prompt": target, **changes}
        *others, report = node.execute(**given).args
        assert all(line.startswith("- ") for line in report.splitlines())
        return *others, "\n".join(line.removeprefix("- ") for line in report.splitlines())

    return control


def moved(*ranges: tuple[range, range]) -> np.ndarray:
    """A matrix of ones where tokens of the source become tokens of the target."""
    matrix = np.zeros((LENGTH, LENGTH))
    for old, new in ranges:
        matrix[list(old), list(new)] = 1
    return matrix


def test_defaults_are_those_of_the_schema(node):
    inputs = {i.id: i for i in node.define_schema().inputs}
    assert list(inputs) == ["clip", *DEFAULTS]
    prompts = {"source_prompt": "", "target_prompt": ""}
    assert {name: inputs[name].default for name in DEFAULTS} == {**DEFAULTS, **prompts}
    assert all(len(i.tooltip) > 20 for i in inputs.values())


def test_equal_words(control):
    """[start a red square … end pad] to the same places, whatever the words."""
    found, *_, report = control()
    np.testing.assert_array_equal(found.tokens.matrix.numpy(), np.eye(LENGTH))
    assert found.tokens.shared.tolist() == [1] * LENGTH and found.factors.tolist() == [1] * LENGTH
    assert found.source.texts == tuple(SOURCE.split()) and found.target.texts[2] == "circle"
    assert found.blend is None
    assert report == (
        "mode: replace, because both prompts have 8 words\n"
        "words: square → circle; the other 7 stay\n"
        "cross-attention: the source's in the first 20% of the steps\n"
        "temporal attention: the source's in the first 50% of the steps\n"
        "unconditional: decoupled, if the inversion has null-text embeddings"
    )


def test_one_word_to_three_tokens(control):
    """[start a cat runs end pad*72] to [start a hip popo tamus runs end pad*70]"""
    found, *_, report = control("a cat runs", "a hippopotamus runs")
    expected = moved((range(2), range(2)), (range(3, 75), range(5, 77)))
    expected[2, 2:5] = 1 / 3
    expected[75:, 76] = 1  # padding that the target has no room for
    np.testing.assert_allclose(found.tokens.matrix.numpy(), expected, rtol=1e-6)
    assert "words: cat → hippopotamus; the other 2 stay\n" in report


def test_insertion(control):
    """[start a circle end pad*73] to [start a red circle end pad*72]"""
    found, *_, report = control("a circle", "a red circle")
    expected = moved((range(2), range(2)), (range(2, 76), range(3, 77)))
    expected[76, 76] = 1
    np.testing.assert_array_equal(found.tokens.matrix.numpy(), expected)
    assert found.tokens.shared.tolist() == [1, 1, 0, *[1] * 74]
    assert report.startswith(
        "mode: refine, because the prompts have 2 and 3 words\nwords: new, with their own maps: red; the other 2 stay\n"
    )


def test_deletion(control):
    found, *_, report = control("a red circle", "a circle")
    expected = moved((range(2), range(2)), (range(3, 77), range(2, 76)))
    np.testing.assert_array_equal(found.tokens.matrix.numpy(), expected)
    assert found.tokens.shared.tolist() == [1] * LENGTH
    assert "\nwords: left out: red; the other 2 stay\n" in report


def test_refining_an_exchange(control):
    found, *_, report = control("a red circle", "a blue circle", mode="refine")
    assert found.tokens.shared.tolist() == [1, 1, 0, *[1] * 74]
    assert report.startswith("mode: refine\nwords: new, with their own maps: blue; left out: red; the other 2 stay\n")


def test_a_word_that_is_new_in_part(control, clip, pack):
    """Words of several tokens that begin alike."""
    read = pack("host.clip").read_prompt
    old, new = read(clip, "hippopotamus"), read(clip, "hippopotamuses")
    assert set(old.ids[1:4]) & set(new.ids[1:5]) and len(new.content) > 1
    report = control("a hippopotamus", "a big hippopotamuses")[2]
    assert "words: new, with their own maps: big; new in part: hippopotamuses; the other one stays\n" in report


def test_equal_prompts(control):
    report = control(SOURCE, SOURCE)[2]
    assert "\nwords: all 8 stay\n" in report
    assert "\nwords: all 8 stay\n" in control(SOURCE, SOURCE, mode="refine")[2]


def test_nothing_in_common(control):
    assert "\nwords: a → red, cat → dogs\n" in control("a cat", "red dogs")[2]


@pytest.mark.parametrize(
    "source, target, pairs",
    [
        ("a man is driving a motorbike", "a Spider-Man is driving a motorbike", "man → Spider-Man"),  # Video-P2P's own
        ("a man in a suit, running", "a man in a T-shirt, running", "suit, → T-shirt,"),
        ("a new car", "a 1950s car", "new → 1950s"),
    ],
)
def test_words_are_what_stands_between_spaces(source, target, pairs, control):
    found, *_, report = control(
        source, target, blend_source=pairs.split(" → ")[0].strip(","), blend_target=pairs.split(" → ")[1].strip(",")
    )
    assert report.startswith("mode: replace, because both prompts have ")
    assert f"words: {pairs}; the other {len(source.split()) - 1} stay" in report
    np.testing.assert_allclose(found.tokens.matrix.sum(1).numpy(), np.ones(LENGTH), rtol=1e-6)
    replaced = next(i for i, word in enumerate(target.split()) if word == pairs.split(" → ")[1])
    marked = found.blend.target.nonzero().flatten().tolist()
    assert marked and marked == found.target.tokens_of(replaced)[: len(marked)]


@pytest.mark.parametrize(
    "source, target, entries, own",
    [
        ("car,bus", "pink-car,bus", {(1, 1): 1 / 3, (1, 2): 1 / 3, (1, 3): 1 / 3, (2, 4): 1, (3, 5): 1}, []),
        ("pink-car,bus", "car,bus", {(1, 1): 1, (2, 1): 1, (3, 1): 1, (4, 2): 1, (5, 3): 1}, []),
        ("bus", "bus.", {(1, 1): 1}, [2]),
        ("bus.", "bus", {(1, 1): 1, (2, 1): 1}, []),
        ("man", "Spider-Man", {(1, 1): 1 / 3, (1, 2): 1 / 3, (1, 3): 1 / 3}, []),
        ("suit,", "T-shirt,", {(1, 1): 1 / 3, (1, 2): 1 / 3, (1, 3): 1 / 3, (2, 4): 1}, []),
    ],
)
def test_a_replaced_word_is_spread_over_what_replaces_it(source, target, entries, own, control):
    """Not over the comma and the next word behind it."""
    found, *_ = control(source, target)
    expected = np.zeros((LENGTH, LENGTH))
    for place, value in entries.items():
        expected[place] = value
    words = max(i for i, _ in entries) + 1
    np.testing.assert_allclose(found.tokens.matrix.numpy()[1:words], expected[1:words], rtol=1e-6)
    assert [i for i, one in enumerate(found.tokens.shared) if not one] == own


def test_words_without_spaces_are_refined(control):
    *_, report = control("一辆红色的汽车", "一辆蓝色的拖拉机")
    assert report.startswith("mode: refine, because some words are not separated by spaces\n")


def test_equal_counts_with_shifted_words_are_refined(control):
    """The public code would let "rabbit" take the map of "is"."""
    report = control("a rabbit is jumping", "a origami rabbit jumping")[2]
    assert report.startswith(
        "mode: refine, because both prompts have 4 words, but the shared ones are in different places\n"
        "words: new, with their own maps: origami; left out: is; the other 3 stay\n"
    )
    chosen = control("a rabbit is jumping", "a origami rabbit jumping", mode="replace")[2]
    assert chosen.startswith("mode: replace\nwords: rabbit → origami, is → rabbit; the other 2 stay")


def test_repeated_words_are_all_marked(control):
    found, *_, report = control(
        "a red square on a red striped background",
        "a red circle on a red striped background",
        reweight="red: 2\n striped background : -0.5",
        blend_source="square, red",
        blend_target="circle",
        blend_threshold=0.5,
        blend_start=0.0,
    )
    assert found.factors[:10].tolist() == [1, 1, 2, 1, 1, 1, 2, -0.5, -0.5, 1]
    assert found.blend.source.nonzero().flatten().tolist() == [2, 3, 6]
    assert found.blend.target.nonzero().flatten().tolist() == [3]
    assert (found.blend.threshold, found.blend.start) == (0.5, 0.0)
    assert report.endswith(
        "\nreweighted: red × 2, striped background × -0.5"
        "\nLocalBlend: changes only square, red → circle, threshold 0.5, after 0% of the steps"
    )


def test_words_of_several_tokens_are_marked_whole(control):
    found, *_ = control(
        "a cat runs", "a hippopotamus runs", reweight="Hippopotamus: 3", blend_source="cat", blend_target="hippopotamus"
    )
    assert found.factors[:7].tolist() == [1, 1, 3, 3, 3, 1, 1]
    assert found.blend.target[:7].tolist() == [0, 0, 1, 1, 1, 0, 0]


def test_weights_are_encoded_but_are_no_words(control, encode, pack):
    same_text = pack("host.clip").same_text
    found, positive, report = control(target="a red (circle:1.5) on a striped blue background")
    assert found.target.texts[2] == "circle" and "square → circle" in report
    assert same_text(positive, encode("a red (circle:1.5) on a striped blue background"))
    assert not same_text(positive, encode("a red circle on a striped blue background"))
    assert same_text(found.source_conditioning, encode(SOURCE))


def test_an_embedding_that_the_user_does_not_have_is_left_out(control):
    """As the host leaves it out of the prompt itself."""
    found, *_ = control(target="embedding:none a red circle on a striped blue background")
    assert found.target.texts == tuple("a red circle on a striped blue background".split())
    found, *_ = control("embedding:none, a man in a T-shirt", "embedding:none, a man in a sweater")
    assert found.source.texts == (",", "a", "man", "in", "a", "T-shirt")


def test_conditionings(control, encode, pack):
    same_text = pack("host.clip").same_text
    found, positive, _ = control()
    assert found.target_conditioning is positive and same_text(positive, encode(DEFAULTS["target_prompt"]))
    assert same_text(found.source_conditioning, encode(SOURCE))


def test_long_prompts(control):
    long = "a red square on a striped blue background, " * 10
    found, *_, report = control(long, long.replace("square", "circle", 1))
    assert len(found.source) == len(found.target) == len(found.factors) == 2 * LENGTH
    assert report.startswith("mode: replace, because both prompts have 80 words\nwords: square → circle; the other")


@pytest.mark.parametrize(
    "cross, own, maps, lines",
    [
        (
            0,
            0,
            "temporal",
            [
                "cross-attention: the edit's own throughout (cross_replace 0)",
                "temporal attention: the edit's own throughout (self_replace 0)",
            ],
        ),
        (
            1,
            0.25,
            "spatial",
            [
                "cross-attention: the source's in all steps",
                "spatial attention: the source's in the first 25% of the steps",
            ],
        ),
        (
            0.8,
            1,
            "both",
            [
                "cross-attention: the source's in the first 80% of the steps",
                "temporal and spatial attention: the source's in all steps",
            ],
        ),
    ],
)
def test_shares(cross, own, maps, lines, control):
    found, *_, report = control(cross_replace=cross, self_replace=own, self_maps=maps, unconditional="late")
    assert (found.cross_replace, found.self_replace, found.self_maps) == (cross, own, maps)
    assert report.splitlines()[2:4] == lines
    assert found.unconditional == "late" and "\nunconditional: late, if" in report
