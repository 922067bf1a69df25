"""The words that LocalBlend goes by, for every edit of the benchmark."""

from __future__ import annotations

from benchmarks.editbench.clips import SPLITS, blend_words, quick, split

EDITS = [(clip, edit) for clips in (*map(split, SPLITS), quick()) for clip in clips for edit in clip.edits]


def test_the_objects_words_where_only_the_object_changes():
    for clip, edit in EDITS:
        before, after = (text.split(" on ", 1) for text in (clip.source_prompt, edit.target_prompt))
        words = blend_words(clip, edit)
        if before[1] == after[1]:
            assert words == (before[0].split()[1:], after[0].split()[1:])
        else:
            assert words is None


def test_both_cases_occur():
    lacking = [blend_words(clip, edit) is None for clip, edit in EDITS]
    assert 0.3 < sum(lacking) / len(lacking) < 0.7
