"""Which words LocalBlend goes by: what an edit changes, found by comparing the two prompts word by word."""

from __future__ import annotations

from ei2.token_alignment import align

ARTICLES = ("a", "an", "the")
SMALL_WORDS = (*ARTICLES, "and", "at", "behind", "by", "in", "of", "on", "over", "to", "with")  # a noun comes before


def blend_words(source: str, target: str) -> tuple[list[str], list[str]]:
    """The words of the source prompt and of the target prompt in whose regions an edit may change the picture.

    The prompts are aligned word by word; articles count as one word. Source words without a partner vanish, target
    words without one are new: those are the words. Where words are only taken out or only put in, one prompt has none
    of its own, and gets the noun that they describe: the last word before the next small word or the end. "A red star
    on a dotted blue background" and "a red star on a blue background" give "dotted" and "background".

    Raises ValueError where nothing differs, and where that noun is not in both prompts.
    """
    old, new = source.split(), target.split()
    partners = align(*([word if word not in ARTICLES else "a" for word in words] for words in (old, new)))
    vanish = [i for i in range(len(old)) if i not in partners]
    come = [i for i, partner in enumerate(partners) if partner is None]
    nouns = [_noun(old, i) for i in vanish if not come] or [_noun(new, i) for i in come if not vanish]
    if not vanish and not come or not all(noun in old and noun in new for noun in nouns):
        raise ValueError(f"No words in {source!r} and {target!r} stand for each other: nothing can be blended.")
    words = [old[i] for i in vanish] or nouns, [new[i] for i in come] or nouns
    return tuple(list(dict.fromkeys(listed)) for listed in words)


def _noun(words: list[str], place: int) -> str:
    """What the word at a place describes, or the word itself."""
    while place + 1 < len(words) and words[place + 1] not in SMALL_WORDS:
        place += 1
    return words[place]
