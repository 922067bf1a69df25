"""The words that LocalBlend goes by, for every edit of the benchmark and for the cases that it does not hold."""

from __future__ import annotations

import pytest

from benchmarks.editbench.blend_words import blend_words
from benchmarks.editbench.clips import SPLITS, quick, split

ORDER = ("color", "shape", "pattern", "background")  # as a prompt names them
EDITS = [(clip, edit) for clips in (*map(split, SPLITS), quick()) for clip in clips for edit in clip.edits]


def said(scene, attributes) -> list[str]:
    """The scene's words for the attributes; a plain pattern has none, so that the background stands for it."""
    words = [getattr(scene, name) for name in ORDER if name in attributes]
    return ["background" if word == "plain" else word for word in words]


def test_every_edit_of_the_benchmark():
    for clip, edit in EDITS:
        expected = said(clip.scenes[0], edit.changes), said(edit.target_scenes[0], edit.changes)
        found = blend_words(clip.source_prompt, edit.target_prompt)
        assert found == expected, edit.target_prompt
        for words, text in zip(found, (clip.source_prompt, edit.target_prompt)):
            assert all(text.split().count(word) == 1 for word in words), "which of them is meant?"


def test_the_edits_hold_the_hard_cases():
    prompts = [(clip.source_prompt, edit.target_prompt) for clip, edit in EDITS]
    lengths = {len(target.split()) - len(source.split()) for source, target in prompts}
    assert lengths == {0, -1}, "patterns are changed and taken out"
    moved = [1 for clip, edit in EDITS if clip.scenes[0].color == edit.target_scenes[0].background]
    assert len(moved) >= 2, "the object's colour becomes the background's"
    assert any(" an " in f" {source} " and " an " not in f" {target} " for source, target in prompts)


@pytest.mark.parametrize("source, target, words", [
    ("a red star on a blue background", "a red star on a dotted blue background", (["background"], ["dotted"])),
    ("a star on a blue background", "a big red star on a blue background", (["star"], ["big", "red"])),
    ("a star on a background", "a red star on a blue background", (["star", "background"], ["red", "blue"])),
])
def test_words_only_put_in_or_taken_out_belong_to_a_noun(source, target, words):
    assert blend_words(source, target) == words
    assert blend_words(target, source) == words[::-1]


def test_an_article_is_no_difference():
    assert blend_words("an orange star", "a red star") == (["orange"], ["red"])
    for same in ("a red star", "an red star"):
        with pytest.raises(ValueError, match="nothing can be blended"):
            blend_words("a red star", same)


def test_a_part_that_only_one_prompt_has_stands_for_nothing():
    with pytest.raises(ValueError, match="'a cat' and 'a cat with a hat' stand for each other"):
        blend_words("a cat", "a cat with a hat")
