"""Which token of the target prompt takes which source token's attention map (Prompt-to-Prompt, Hertz et al., ICLR 2023,
as Video-P2P and Vid2Vid-zero use it).

Replace: the prompts have the same number of words, and word n replaces word n. Refine: the prompts are aligned, and
shared tokens keep their maps. Both give a `TokenMap`. Positions are the text encoder's, including start, end and
padding. As in the sources, words are separated by spaces: punctuation belongs to the word it is attached to.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch

from .prompt import Prompt, listed
from .user_text import check_choice

MATCH, MISMATCH = 1, -1  # scores of the alignment; a gap scores 0
MODES = ("auto", "replace", "refine")
MOST_TOKENS = 20 * 77  # of a prompt: a token map is a square matrix of this size
ENDING = re.compile(r"\w[^\w\s]+$")  # punctuation at the end of a word


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
    """The map and the mode that made it. `auto` means `replace` if both prompts have the same number of words, all
    separated by spaces, and the shared ones are in the same places, otherwise `refine`.

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
            "one, or lengthen the other."
        )
    if mode == "auto":
        separated = not (source.unspaced or target.unspaced)
        mode = "replace" if separated and same_places(source, target) else "refine"
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

    Token by token if both words have the same number of tokens. Otherwise each source token is spread evenly over the
    target word's tokens; in "car,bus" and "pink-car,bus" the text encoder's own words are aligned first. Every row of
    the matrix sums to 1, so the maps still sum to 1 over tokens. (In the public code they no longer do after a word
    whose number of tokens changes, because later tokens are mapped by position.) Only punctuation added at the end of a
    word keeps its own map.

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
        for old, new in _replaced_tokens(source, target, word):
            if len(old) == len(new):
                matrix[old, new] = 1
            else:
                matrix[torch.tensor(old)[:, None], torch.tensor(new)] = 1 / len(new)
    _map_special(matrix, source, target)
    shared = torch.ones(len(target))
    added = [token for token in target.content if not matrix[:, token].any()]
    shared[added] = 0
    return TokenMap(matrix, shared)


def _replaced_tokens(source: Prompt, target: Prompt, word: int) -> list[tuple[list[int], list[int]]]:
    """Pairs of tokens of a source word, and the tokens of the target word that take their maps."""
    if len(source.tokens_of(word)) == len(target.tokens_of(word)):
        return [(source.tokens_of(word), target.tokens_of(word))]
    old, new = source.parts_of(word), target.parts_of(word)
    if len(new) > 1 and ENDING.search(target.texts[word]) and not ENDING.search(source.texts[word]):
        new.pop()
    ids = [[tuple(prompt.ids[i] for i in part) for part in parts] for prompt, parts in ((source, old), (target, new))]
    shared = [(i, j) for j, i in enumerate(align(*ids)) if i is not None]
    pairs, i, j = [], 0, 0
    for next_i, next_j in [*shared, (len(old), len(new))]:
        lost, added = old[i:next_i], new[j:next_j]
        if lost and added:
            pairs.append((lost, added))
            lost, added = [], []
        i, j = next_i + 1, next_j + 1  # what is only lost or only added belongs to the shared part behind it
        pairs.append((lost + old[next_i:i], added + new[next_j:j]))
    lost, added = pairs.pop()  # or before it, at the end
    pairs[-1] = pairs[-1][0] + lost, pairs[-1][1] + added
    return [(list(chain(*old)), list(chain(*new))) for old, new in pairs]


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


def _map_special(matrix: torch.Tensor, source: Prompt, target: Prompt) -> None:
    """Start to start, end to end, padding to padding in order, in each window. Surplus padding of the source goes to
    the target's last, so nothing is lost."""
    for old, new in zip(source.windows, target.windows):
        for k, token in enumerate(old):
            matrix[token, new[min(k, len(new) - 1)]] = 1
