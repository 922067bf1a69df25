"""A prompt as the text encoder reads it: its tokens, its words, and where a user's words occur.

Positions are the text encoder's, including start, end and padding. Words are separated by spaces: punctuation belongs
to the word it is attached to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch

from .user_text import short

NO_WORD = -1
PLAIN = re.compile(r"[\w'’-]{1,60}")  # a word that needs no quotes in a message
LISTED = 40  # words in a message
# Thai, Lao, Burmese, Khmer, Japanese and Chinese: a "word" between spaces is a whole clause there
UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


@dataclass(frozen=True)
class Prompt:
    """A prompt of l tokens.

    `ids`: vocabulary ids, negative for textual-inversion vectors; `words`: each token's word, ascending from 0,
    `NO_WORD` for start, end and padding; `texts`: the words, for messages; `parts`: like `words`, but for the text
    encoder's own words, of which "T-shirt," has four: T, -, shirt and the comma. Empty: the same as `words`.
    """

    ids: tuple[int, ...]
    words: tuple[int, ...]
    texts: tuple[str, ...]
    parts: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def content(self) -> list[int]:
        """Positions of the words' tokens."""
        return [i for i, word in enumerate(self.words) if word != NO_WORD]

    @property
    def windows(self) -> list[list[int]]:
        """Positions of start, end and padding, for each of the text encoder's windows. Each begins with a start."""
        windows = []
        for i, word in enumerate(self.words):
            if word == NO_WORD:
                if i == 0 or self.ids[i] == self.ids[0]:
                    windows.append([])
                windows[-1].append(i)
        return windows

    @property
    def unspaced(self) -> bool:
        """Whether it has letters of a script that is written without spaces between words."""
        return any(map(UNSPACED.search, self.texts))

    def tokens_of(self, word: int) -> list[int]:
        """Positions of one word's tokens."""
        return [i for i, other in enumerate(self.words) if other == word]

    def marks(self, word: int) -> torch.Tensor:
        """`l`, 1 at one word's tokens, 0 elsewhere."""
        return torch.tensor([float(other == word) for other in self.words])

    def parts_of(self, word: int) -> list[list[int]]:
        """The same, separately for each of the text encoder's own words."""
        return [list(some) for _, some in groupby(self.tokens_of(word), (self.parts or self.words).__getitem__)]

    def ids_of(self, word: int) -> tuple[int, ...]:
        """The vocabulary ids of one word's tokens."""
        return tuple(self.ids[i] for i in self.tokens_of(word))

    def find(self, other: Prompt) -> list[list[int]]:
        """Positions of every occurrence of the words of `other`; empty if there is none. "shirt" is found in
        "T-shirt,", but fragments of the text encoder's words are not found."""
        content, ids = self.content, [other.ids[i] for i in other.content]
        parts = self.parts or self.words
        size = len(ids)
        spans = []
        for start in range(len(content) - size + 1 if size else 0):
            span = content[start : start + size]
            before, after = content[start - 1 : start], content[start + size : start + size + 1]
            whole = not any(parts[i] == parts[span[0]] for i in before)
            whole = whole and not any(parts[i] == parts[span[-1]] for i in after)
            if whole and [self.ids[i] for i in span] == ids:
                spans.append(span)
        return spans


def word_tokens(prompt: Prompt, words: Iterable[Prompt], name: str) -> torch.Tensor:
    """`l`, 1 at every occurrence of the words' tokens, 0 elsewhere. `name`: the prompt's, for messages.

    Raises `ValueError`, listing the prompt's words, if a word does not occur.
    """
    marks = torch.zeros(len(prompt))
    for word in words:
        for span in find_word(prompt, word, name):
            marks[span] = 1
    return marks


def find_word(prompt: Prompt, word: Prompt, name: str) -> list[list[int]]:
    """Like `Prompt.find`, but raises `ValueError`, listing the prompt's words, if the word does not occur."""
    spans = prompt.find(word)
    if not spans:
        text = " ".join(word.texts)
        around = [whole for whole in prompt.texts if text in whole]
        advice = f" It is only a part of {listed(around)}: name that, or put spaces around it in the prompt."
        raise ValueError(
            f"{short(text)} is not in the {name} prompt, whose words are: {listed(prompt.texts)}."
            + (advice if around else "")
        )
    return spans


def reweight_factors(prompt: Prompt, factors: Iterable[tuple[Prompt, float]]) -> torch.Tensor:
    """`l`, the factor of each token's map; 1 by default. Raises `ValueError` for words not in the target
    prompt, and for two factors on one word."""
    result, weighted = torch.ones(len(prompt)), set()
    for word, factor in factors:
        tokens = {token for span in find_word(prompt, word, "target") for token in span}
        if not weighted.isdisjoint(tokens):
            raise ValueError(f"{short(' '.join(word.texts))} has two factors in reweight: keep one of the lines.")
        weighted |= tokens
        result[sorted(tokens)] = factor
    return result


def listed(words: Sequence[str]) -> str:
    """A prompt's words for a message; words with unusual characters are quoted."""
    return few([word if PLAIN.fullmatch(word) else short(word) for word in words]) or "none"


def few(texts: Sequence[str]) -> str:
    """The texts, separated by commas; only the first ones if there are many."""
    more = [f"and {len(texts) - LISTED} more"] if len(texts) > LISTED else []
    return ", ".join([*texts[:LISTED], *more])
