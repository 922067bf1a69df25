"""Which token of the target prompt takes which source token's attention map (Prompt-to-Prompt, Hertz et al., ICLR 2023,
as Video-P2P and Vid2Vid-zero use it).

Replace: the prompts have the same number of words, and word n replaces word n. Refine: the prompts are aligned, and
shared tokens keep their maps. Both give a `TokenMap`. Positions are the text encoder's, including start, end and
padding. As in the sources, words are separated by spaces: punctuation belongs to the word it is attached to.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .user_text import check_choice, short

MATCH, MISMATCH = 1, -1  # scores of the alignment; a gap scores 0
MODES = ("auto", "replace", "refine")
NO_WORD = -1
MOST_TOKENS = 20 * 77  # of a prompt: a token map is a square matrix of this size
PLAIN = re.compile(r"[\w'’-]{1,60}")  # a word that needs no quotes in a message
LISTED = 40  # words in a message


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
    def special(self) -> list[int]:
        """Positions of start, end and padding."""
        return [i for i, word in enumerate(self.words) if word == NO_WORD]

    def tokens_of(self, word: int) -> list[int]:
        """Positions of one word's tokens."""
        return [i for i, other in enumerate(self.words) if other == word]

    def marks(self, word: int) -> torch.Tensor:
        """`l`, 1 at one word's tokens, 0 elsewhere."""
        return torch.tensor([float(other == word) for other in self.words])

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


@dataclass(frozen=True)
class TokenMap:
    """How maps of the source prompt become maps of the target prompt.

    `matrix`: `l l`, source tokens to target tokens; `shared`: `l`, 1 where the target token takes the mapped source
    map, 0 where it keeps its own. With one column per token: source @ matrix · shared + own · (1 - shared).
    """

    matrix: torch.Tensor
    shared: torch.Tensor

    def to(self, device: torch.device) -> TokenMap:
        return TokenMap(self.matrix.to(device), self.shared.to(device))


def token_map(source: Prompt, target: Prompt, mode: str) -> tuple[TokenMap, str]:
    """The map and the mode that made it. `auto` means `replace` if both prompts have the same number of words and the
    shared ones are in the same places, otherwise `refine`.

    Raises `ValueError` for an unknown mode, for very long prompts, and if only one
    prompt exceeds the text encoder's window.
    """
    check_choice("mode", mode, MODES)
    for name, prompt in (("source", source), ("target", target)):
        if len(prompt) > MOST_TOKENS:
            raise ValueError(
                f"The {name} prompt fills {len(prompt)} tokens, of which attention control follows {MOST_TOKENS}: "
                "shorten it."
            )
    if len(source) != len(target):
        raise ValueError(
            f"The source prompt fills {len(source)} tokens and the target prompt {len(target)}: shorten the longer "
            "one, or make both long."
        )
    if mode == "auto":
        mode = "replace" if same_places(source, target) else "refine"
    return (replace_map if mode == "replace" else refine_map)(source, target), mode


def same_places(source: Prompt, target: Prompt) -> bool:
    """Whether both prompts have the same number of words, and no shared word has moved."""
    if len(source.texts) != len(target.texts):
        return False
    old, new = ([prompt.ids_of(i) for i in range(len(prompt.texts))] for prompt in (source, target))
    shared = sum(partner is not None for partner in align(old, new))
    return shared == sum(x == y for x, y in zip(old, new))


def replace_map(source: Prompt, target: Prompt) -> TokenMap:
    """Word n of the target takes the map of word n of the source.

    Token by token if both words have the same number of tokens; otherwise each source token is spread evenly over the
    target word's tokens. Every row of the matrix sums to 1, so the maps still sum to 1 over tokens. (In the public code
    they no longer do after a word whose number of tokens changes, because later tokens are mapped by position.)

    Raises `ValueError` when the prompts have different numbers of words.
    """
    if len(source.texts) != len(target.texts):
        raise ValueError(
            f"Replacing needs prompts with the same number of words, but the source prompt has {len(source.texts)} "
            f"({listed(source.texts)}) and the target prompt {len(target.texts)} ({listed(target.texts)}): "
            "choose mode refine."
        )
    matrix = torch.zeros(len(source), len(target))
    for word in range(len(source.texts)):
        old, new = source.tokens_of(word), target.tokens_of(word)
        if len(old) == len(new):
            matrix[old, new] = 1
        else:
            matrix[torch.tensor(old)[:, None], torch.tensor(new)] = 1 / len(new)
    _map_special(matrix, source, target)
    return TokenMap(matrix, torch.ones(len(target)))


def refine_map(source: Prompt, target: Prompt) -> TokenMap:
    """Tokens that global alignment finds in both prompts take the source's map; new ones keep their own.

    Start, end and padding are mapped to each other by kind. (The public code maps padding by position, so with a
    shorter target prompt some padding gets the maps of the source's last words.)
    """
    old, new = source.content, target.content
    matrix = torch.zeros(len(source), len(target))
    shared = torch.ones(len(target))
    for token, partner in zip(new, align([source.ids[i] for i in old], [target.ids[i] for i in new])):
        if partner is None:
            shared[token] = 0
        else:
            matrix[old[partner], token] = 1
    _map_special(matrix, source, target)
    return TokenMap(matrix, shared)


def align(x: Sequence[Hashable], y: Sequence[Hashable]) -> list[int | None]:
    """For every element of `y` the position of its partner in `x`, or None (Needleman and Wunsch, 1970).

    Match +1, mismatch -1, gap 0: the most matches in order. Among equally good alignments, the end of `y` is left
    unmatched rather than the end of `x`, and either rather than matched, so repeated words match early.
    """
    numbers: dict[Hashable, int] = {}
    row, column = ([numbers.setdefault(one, len(numbers)) for one in seq] for seq in (x, y))
    old, new = np.asarray(row, dtype=np.int32), np.asarray(column, dtype=np.int32)
    score = np.zeros((len(x) + 1, len(y) + 1), dtype=np.int16 if len(x) < 2**15 else np.int32)
    for i in range(1, len(x) + 1):  # a row at once: gaps are free, so scores never fall along a row
        diagonal = score[i - 1, :-1] + np.where(new == old[i - 1], MATCH, MISMATCH)
        np.maximum.accumulate(np.maximum(score[i - 1, 1:], diagonal), out=score[i, 1:])
    partners: list[int | None] = [None] * len(y)
    i, j = len(x), len(y)
    while i and j:
        if score[i, j] == score[i, j - 1]:
            j -= 1
        elif score[i, j] == score[i - 1, j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            partners[j] = i
    return partners


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
        raise ValueError(
            f"{short(' '.join(word.texts))} is not in the {name} prompt, whose words are: {listed(prompt.texts)}."
        )
    return spans


def reweight_factors(prompt: Prompt, factors: Iterable[tuple[Prompt, float]]) -> torch.Tensor:
    """`l`, the factor of each token's map; 1 by default. Raises `ValueError` for words not in the target
    prompt, and for two factors on one word."""
    result, weighted = torch.ones(len(prompt)), set()
    for word, factor in factors:
        for span in find_word(prompt, word, "target"):
            if not weighted.isdisjoint(span):
                raise ValueError(f"{short(' '.join(word.texts))} has two factors in reweight: keep one of the lines.")
            weighted.update(span)
            result[span] = factor
    return result


def _map_special(matrix: torch.Tensor, source: Prompt, target: Prompt) -> None:
    """Start to start, end to end, padding to padding in order. Surplus padding of the source goes to
    the target's last, so nothing is lost."""
    old, new = source.special, target.special
    for k, token in enumerate(old):
        matrix[token, new[min(k, len(new) - 1)]] = 1


def listed(words: Sequence[str]) -> str:
    """A prompt's words for a message; words with unusual characters are quoted."""
    return few([word if PLAIN.fullmatch(word) else short(word) for word in words]) or "none"


def few(texts: Sequence[str]) -> str:
    """The texts, separated by commas; only the first ones if there are many."""
    more = [f"and {len(texts) - LISTED} more"] if len(texts) > LISTED else []
    return ", ".join([*texts[:LISTED], *more])
