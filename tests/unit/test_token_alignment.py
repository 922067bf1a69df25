"""Token maps worked out by hand, and the alignment against every possible one."""

from __future__ import annotations

import time
from itertools import combinations, product

import numpy as np
import pytest
import torch

from ei2.prompt import NO_WORD, Prompt, few, find_word, reweight_factors, word_tokens
from ei2.token_alignment import MOST_TOKENS, align, refine_map, replace_map, token_map
from ei2.word_lists import listed_words, parse_reweight

START, END = 1000, 1001


def prompt(text: str, length: int = 10) -> Prompt:
    """Words between spaces, their tokens between bars: "a roller|skat|ing cat", then padded as SD1 does."""
    words = [word.split("|") for word in text.split()]
    tokens = [(sum(map(ord, token)) * 31 + len(token), n) for n, word in enumerate(words) for token in word]
    ids, numbers = zip(*tokens) if tokens else ((), ())
    padding = length - len(tokens) - 1
    return Prompt(
        (START, *ids, *[END] * padding), (NO_WORD, *numbers, *[NO_WORD] * padding), tuple("".join(w) for w in words)
    )


def matrix(pairs: dict, length: int = 10) -> np.ndarray:
    """The matrix with the given (source, target) entries."""
    result = np.zeros((length, length))
    for place, value in pairs.items():
        result[place] = value
    return result


def identity(old: range, new: range) -> dict:
    return dict.fromkeys(zip(old, new, strict=True), 1.0)


def test_equal_words_map_one_to_one():
    tokens = replace_map(prompt("a red circle"), prompt("a blue circle"))
    np.testing.assert_array_equal(tokens.matrix.numpy(), np.eye(10))
    assert tokens.shared.tolist() == [1] * 10


def test_one_word_to_two_tokens():
    """[start a cat runs end pad*5] to [start a hippo potamus runs end pad*4]"""
    expected = matrix(
        {(2, 2): 0.5, (2, 3): 0.5, (9, 9): 1} | identity(range(0, 2), range(0, 2)) | identity(range(3, 9), range(4, 10))
    )
    tokens = replace_map(prompt("a cat runs"), prompt("a hippo|potamus runs"))
    np.testing.assert_array_equal(tokens.matrix.numpy(), expected)


def test_two_tokens_to_one_word():
    """Both source tokens' maps add up; the target's last padding has no partner left."""
    expected = matrix({(2, 2): 1, (3, 2): 1} | identity(range(0, 2), range(0, 2)) | identity(range(4, 10), range(3, 9)))
    tokens = replace_map(prompt("a hippo|potamus runs"), prompt("a cat runs"))
    np.testing.assert_array_equal(tokens.matrix.numpy(), expected)


def test_two_tokens_to_three():
    tokens = replace_map(prompt("x|y b"), prompt("p|q|r b"))
    np.testing.assert_allclose(tokens.matrix[1:3, 1:4].numpy(), np.full((2, 3), 1 / 3), rtol=1e-6)
    assert tokens.matrix[3, 4] == 1  # the word behind moves along


def test_equally_many_tokens_of_a_word_map_in_order():
    tokens = replace_map(prompt("roller|skat|ing b"), prompt("hippo|pota|mus b"))
    np.testing.assert_array_equal(tokens.matrix.numpy(), np.eye(10))


@pytest.mark.parametrize("source, target", [("a b c", "d e f"), ("a|b c", "d e|f|g"), ("a b|c|d e", "f g h"), ("", "")])
def test_replaced_maps_keep_their_sum(source, target):
    tokens = replace_map(prompt(source), prompt(target))
    np.testing.assert_allclose(tokens.matrix.sum(1).numpy(), np.ones(10), rtol=1e-6)


def test_insertion():
    """[start a circle end pad*6] to [start a red circle end pad*5]: only "red" keeps its own map."""
    tokens = refine_map(prompt("a circle"), prompt("a red circle"))
    expected = matrix(identity(range(0, 2), range(0, 2)) | identity(range(2, 9), range(3, 10)) | {(9, 9): 1})
    np.testing.assert_array_equal(tokens.matrix.numpy(), expected)
    assert tokens.shared.tolist() == [1, 1, 0, 1, 1, 1, 1, 1, 1, 1]


def test_deletion():
    """[start a red circle end pad*5] to [start a circle end pad*6]: padding takes padding's maps, never a word's."""
    tokens = refine_map(prompt("a red circle"), prompt("a circle"))
    expected = matrix(identity(range(0, 2), range(0, 2)) | identity(range(3, 10), range(2, 9)))
    np.testing.assert_array_equal(tokens.matrix.numpy(), expected)
    assert tokens.shared.tolist() == [1] * 10
    assert tokens.matrix[2].sum() == 0  # nothing takes the map of "red"


def test_start_end_and_padding_belong_to_their_window():
    """The text encoder moves a phrase to the next window whole, so a window may end early."""
    early = Prompt((START, 1, END, END, END, START, 2, 3, 4, END), (-1, 0, -1, -1, -1, -1, 1, 2, 3, -1), ("a",) * 4)
    late = Prompt((START, 1, 5, 6, END, START, 2, END, END, END), (-1, 0, 1, 2, -1, -1, 3, -1, -1, -1), ("a",) * 4)
    assert early.windows == [[0, 2, 3, 4], [5, 9]] and late.windows == [[0, 4], [5, 7, 8, 9]]
    expected = matrix({(0, 0): 1, (2, 4): 1, (3, 4): 1, (4, 4): 1, (5, 5): 1, (9, 7): 1, (1, 1): 1, (6, 6): 1})
    np.testing.assert_array_equal(refine_map(early, late).matrix.numpy(), expected)


def test_refined_exchange_keeps_the_new_words_own_map():
    tokens = refine_map(prompt("a red circle"), prompt("a blue circle"))
    assert tokens.shared.tolist() == [1, 1, 0, 1, 1, 1, 1, 1, 1, 1]
    assert tokens.matrix[:, 2].sum() == 0


@pytest.mark.parametrize(
    "x, y, partners",
    [
        ("abc", "abc", [0, 1, 2]),
        ("ab", "acb", [0, None, 1]),
        ("acb", "ab", [0, 2]),
        ("ab", "abab", [0, 1, None, None]),  # a repeated word matches early in the new prompt
        ("abab", "ab", [0, 1]),
        ("aba", "a", [0]),
        ("ab", "ba", [1, None]),
        ("", "ab", [None, None]),
        ("ab", "", []),
    ],
    ids=str,
)
def test_alignment_by_hand(x, y, partners):
    assert align([ord(c) for c in x], [ord(c) for c in y]) == partners


def test_alignment_finds_the_most_matches():
    for x, y in product(product(range(3), repeat=4), product(range(3), repeat=5)):
        partners = align(x, y)
        pairs = [(i, j) for j, i in enumerate(partners) if i is not None]
        assert all(x[i] == y[j] for i, j in pairs)
        assert all(a[0] < b[0] for a, b in zip(pairs, pairs[1:]))
        assert len(pairs) == longest_common_subsequence(x, y)


def longest_common_subsequence(x: tuple, y: tuple) -> int:
    """By trying every choice of elements."""
    for size in range(min(len(x), len(y)), 0, -1):
        if {*combinations(x, size)} & {*combinations(y, size)}:
            return size
    return 0


@pytest.mark.parametrize(
    "source, target, mode",
    [
        ("a red circle", "a hippo|potamus circle", "replace"),
        ("a red circle", "a circle", "refine"),  # another number of words
        ("a cat", "red dogs", "replace"),  # nothing shared, so nothing has moved
        ("a rabbit is jumping", "a origami rabbit jumping", "refine"),  # equal counts, shifted words
        ("man in a suit", "a man in suit", "refine"),
        ("a cat and a dog", "a dog and a cat", "replace"),  # an exchange
        ("the the cat", "the big cat", "replace"),
        ("a b c d", "x b y d", "replace"),
    ],
)
def test_auto_replaces_where_the_shared_words_stand_at_the_same_places(source, target, mode):
    assert token_map(prompt(source), prompt(target), "auto")[1] == mode
    assert token_map(prompt(source), prompt(target), "refine")[1] == "refine"


def test_long_prompts_are_aligned_in_no_time_and_very_long_ones_refused():
    """A loop over every pair of tokens took a minute for these."""
    generator = np.random.default_rng(0)
    x, y = (generator.integers(0, 50, 5000).tolist() for _ in range(2))
    begin = time.monotonic()
    partners = align(x, y)
    assert time.monotonic() - begin < 5
    assert all(x[i] == b for b, i in zip(y, partners) if i is not None)
    long = prompt("a", length=MOST_TOKENS + 1)
    with pytest.raises(ValueError, match=f"The source prompt fills {MOST_TOKENS + 1} tokens, .* shorten it"):
        token_map(long, prompt("a"), "auto")


@pytest.mark.parametrize(
    "target, mode, message",
    [
        ("a circle", "replace", "source prompt has 3 .a, red, circle. and the target prompt 2 .a, circle.: choose"),
        ("a circle", "swap", "mode is 'swap': choose one of auto, replace, refine"),
    ],
)
def test_prompts_that_do_not_fit(target, mode, message):
    with pytest.raises(ValueError, match=message):
        token_map(prompt("a red circle"), prompt(target), mode)


def test_prompts_of_different_length():
    with pytest.raises(ValueError, match="fills 10 tokens and the target prompt 20: shorten"):
        token_map(prompt("a"), prompt("a", length=20), "auto")


def test_words_are_found_wherever_they_occur():
    text = prompt("a hippo|potamus and a hippo|potamus")
    assert text.find(prompt("hippo|potamus")) == [[2, 3], [6, 7]]
    assert text.find(prompt("and a")) == [[4, 5]]
    assert text.find(prompt("potamus")) == []  # a part of a word is another word
    assert text.find(prompt("hippo")) == []
    assert text.find(prompt("")) == []
    assert word_tokens(text, [prompt("a"), prompt("and")], "target").tolist() == [0, 1, 0, 0, 1, 1, 0, 0, 0, 0]


def test_missing_words_are_named_with_those_that_are_there():
    message = "'dog' is not in the source prompt, whose words are: a, hippopotamus, ','."
    with pytest.raises(ValueError, match=message):
        find_word(prompt("a hippo|potamus ,"), prompt("dog"), "source")
    message = "'motor' is not in .*a, motorbike. It is only a part of motorbike: name that, or put spaces around it"
    with pytest.raises(ValueError, match=message):
        find_word(prompt("a motor|bike"), prompt("motor"), "source")


def test_reweighting():
    pairs = parse_reweight("red: 2\n\n  a circle :-0.5\n")
    assert pairs == [("red", 2.0), ("a circle", -0.5)]
    factors = reweight_factors(prompt("a red circle"), [(prompt("red"), 2.0), (prompt("circle"), 0.5)])
    assert torch.equal(factors, torch.tensor([1, 1, 2, 0.5, 1, 1, 1, 1, 1, 1]))
    with pytest.raises(ValueError, match="target prompt"):
        reweight_factors(prompt("a red circle"), [(prompt("blue"), 2.0)])


@pytest.mark.parametrize(
    "text, pairs",
    [
        ("red: 2, circle: 0.5", [("red", 2.0), ("circle", 0.5)]),
        ("red：2，circle：0.5；a cat: 3", [("red", 2.0), ("circle", 0.5), ("a cat", 3.0)]),
        ("red: 2,\ncircle: 0.5;", [("red", 2.0), ("circle", 0.5)]),
        ("a, b: 2", [("a, b", 2.0)]),  # a comma may belong to the words
        ("9:16 video: 1e-1", [("9:16 video", 0.1)]),
        ("(red:1.5), (a cat:2)", [("red", 1.5), ("a cat", 2.0)]),  # as in a prompt
        ("", []),
    ],
)
def test_ways_to_write_factors(text, pairs):
    assert parse_reweight(text) == pairs


def test_ways_to_list_words():
    assert listed_words("a cat，dog, ;red\n\n鸟、鱼；") == ["a cat", "dog", "red", "鸟", "鱼"]
    assert few([str(i) for i in range(42)]).endswith("38, 39, and 2 more")


def test_too_many_words_at_once():
    with pytest.raises(ValueError, match="^reweight names 101 words: name at most 100.$"):
        parse_reweight("red: 2\n" * 101)


@pytest.mark.parametrize("words", [("red", "red"), ("red", "a red"), ("red circle", "circle")])
def test_two_factors_on_one_word(words):
    with pytest.raises(ValueError, match=f"'{words[1]}' has two factors in reweight: keep one of the lines"):
        reweight_factors(prompt("a red circle"), [(prompt(word), 2.0) for word in words])


def test_a_phrase_may_overlap_itself():
    factors = reweight_factors(prompt("a very very very old man"), [(prompt("very very"), 2.0)])
    assert factors.tolist() == [1, 1, 2, 2, 2, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("factor", ["1e40", "-101", "1000"])
def test_absurd_factors(factor):
    with pytest.raises(
        ValueError, match=f"^Line 1 of reweight has the factor {factor}: use one between -100 and 100.$"
    ):
        parse_reweight(f"red: {factor}")


@pytest.mark.parametrize("line", ["red", "red:", ": 2", "red: two", "red: nan", "red: inf", "2"])
def test_reweight_lines_that_cannot_be_read(line):
    with pytest.raises(ValueError, match=f"Line 2 of reweight is '{line}': write a word and a factor"):
        parse_reweight(f"circle: 1\n{line}")
