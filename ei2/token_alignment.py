"""Which token of a new prompt takes which token's attention map of the old one (Prompt-to-Prompt, Hertz et al., ICLR
2023, as Video-P2P and Vid2Vid-zero use it).

Replace: the prompts have equally many words, word n stands for word n. Refine: the prompts are aligned, what they share
keeps its map. Both give a `TokenMap`. Positions count as the text encoder sees them, with start, end and padding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

MATCH, MISMATCH, GAP = 1, -1, 0  # of the alignment
MODES = ("auto", "replace", "refine")
NO_WORD = -1


@dataclass(frozen=True)
class Prompt:
    """A prompt of l tokens.

    `ids`: their numbers in the vocabulary, textual-inversion vectors as negative ones; `words`: which word each
    belongs to, counted from 0 and ascending, `NO_WORD` for start, end and padding; `texts`: the words, for messages.
    """

    ids: tuple[int, ...]
    words: tuple[int, ...]
    texts: tuple[str, ...]

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

    def find(self, other: Prompt) -> list[list[int]]:
        """Positions of every occurrence of the words of `other`, whole words only; empty when there is none."""
        content, wanted = self.content, [other.ids[i] for i in other.content]
        size = len(wanted)
        found = []
        for start in range(len(content) - size + 1 if size else 0):
            span = content[start : start + size]
            before, after = content[start - 1 : start], content[start + size : start + size + 1]
            whole = not any(self.words[i] == self.words[span[0]] for i in before)
            whole = whole and not any(self.words[i] == self.words[span[-1]] for i in after)
            if whole and [self.ids[i] for i in span] == wanted:
                found.append(span)
        return found


@dataclass(frozen=True)
class TokenMap:
    """How maps of the source prompt become maps of the target prompt.

    `matrix`: `l l`, source tokens to target tokens; `shared`: `l`, 1 where the target token takes what the matrix
    gives, 0 where it keeps its own map. With the maps as rows of tokens: source @ matrix · shared + own · (1 - shared).
    """

    matrix: torch.Tensor
    shared: torch.Tensor

    def to(self, device: torch.device) -> TokenMap:
        return TokenMap(self.matrix.to(device), self.shared.to(device))


def token_map(source: Prompt, target: Prompt, mode: str) -> tuple[TokenMap, str]:
    """The map and the mode it was made by: `auto` is `replace` for equally many words, otherwise `refine`.

    Raises `ValueError` for another mode, and for prompts of which one is longer than the text encoder's window and the
    other is not.
    """
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}: choose one of {', '.join(MODES)}.")
    if len(source) != len(target):
        raise ValueError(
            f"The source prompt fills {len(source)} tokens and the target prompt {len(target)}: shorten the longer "
            "one, or write both long."
        )
    if mode == "auto":
        mode = "replace" if len(source.texts) == len(target.texts) else "refine"
    return (replace_map if mode == "replace" else refine_map)(source, target), mode


def replace_map(source: Prompt, target: Prompt) -> TokenMap:
    """Word n of the target takes the map of word n of the source.

    Token by token where both words have equally many; otherwise each token of the source word is spread evenly over
    the target word's tokens. Every row of the matrix sums to 1, so the maps still sum to 1 over tokens. (The public
    code loses this behind a word that changes its number of tokens: it maps later tokens by position.)

    Raises `ValueError` when the prompts have different numbers of words.
    """
    if len(source.texts) != len(target.texts):
        raise ValueError(
            f"Replacing needs prompts with equally many words, but the source prompt has {len(source.texts)} "
            f"({_listed(source)}) and the target prompt {len(target.texts)} ({_listed(target)}): choose mode refine."
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
    """Tokens that both prompts share, by global alignment, take the source's map; new ones keep their own.

    Start, end and padding are mapped to each other by kind. (The public code maps the padding by position, which
    behind a shorter target prompt gives padding the maps of the source's last words.)
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


def align(x: Sequence[int], y: Sequence[int]) -> list[int | None]:
    """For every element of `y` the position of its partner in `x`, or None (Needleman and Wunsch, 1970).

    Match +1, mismatch -1, gap 0: the most matches in order. Where several alignments are as good, the end of `y` is
    left without partner rather than the end of `x`, and both rather than a match: repeated words match early.
    """
    score = [[GAP * (i + j) if 0 in (i, j) else 0 for j in range(len(y) + 1)] for i in range(len(x) + 1)]
    for i in range(1, len(x) + 1):
        for j in range(1, len(y) + 1):
            diagonal = score[i - 1][j - 1] + (MATCH if x[i - 1] == y[j - 1] else MISMATCH)
            score[i][j] = max(score[i][j - 1] + GAP, score[i - 1][j] + GAP, diagonal)
    partners: list[int | None] = [None] * len(y)
    i, j = len(x), len(y)
    while i and j:
        if score[i][j] == score[i][j - 1] + GAP:
            j -= 1
        elif score[i][j] == score[i - 1][j] + GAP:
            i -= 1
        else:
            i, j = i - 1, j - 1
            partners[j] = i
    return partners


def word_tokens(prompt: Prompt, words: Iterable[Prompt], name: str) -> torch.Tensor:
    """`l`, 1 at the tokens of the given words, wherever they occur, 0 elsewhere. `name`: the prompt's, for messages.

    Raises `ValueError`, listing the prompt's words, when one does not occur.
    """
    marks = torch.zeros(len(prompt))
    for word in words:
        for span in find_word(prompt, word, name):
            marks[span] = 1
    return marks


def find_word(prompt: Prompt, word: Prompt, name: str) -> list[list[int]]:
    """As `Prompt.find`, but raises `ValueError`, listing the prompt's words, when there is nothing to find."""
    found = prompt.find(word)
    if not found:
        raise ValueError(f"{' '.join(word.texts)!r} is not in the {name} prompt, whose words are: {_listed(prompt)}.")
    return found


def reweight_factors(prompt: Prompt, factors: Iterable[tuple[Prompt, float]]) -> torch.Tensor:
    """`l`, the factor of each token's map; 1 where nothing is said. Raises `ValueError` for words not in the target
    prompt, and for two factors on one word."""
    result, given = torch.ones(len(prompt)), set()
    for word, factor in factors:
        for span in find_word(prompt, word, "target"):
            if not given.isdisjoint(span):
                raise ValueError(f"{' '.join(word.texts)!r} gets two factors in reweight: leave one line of them.")
            given.update(span)
            result[span] = factor
    return result


def parse_reweight(text: str) -> list[tuple[str, float]]:
    """Lines such as `red: 2` to words and factors. Raises `ValueError` naming the line that cannot be read."""
    pairs = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        word, colon, factor = line.rpartition(":")
        try:
            value = float(factor)
        except ValueError:
            value = math.nan
        if not colon or not word.strip() or not math.isfinite(value):
            raise ValueError(f'Line {number} of reweight is {line.strip()!r}: write a word and a factor, as "red: 2".')
        pairs.append((word.strip(), value))
    return pairs


def _map_special(matrix: torch.Tensor, source: Prompt, target: Prompt) -> None:
    """Start to start, end to end, padding to padding in order; padding too many in the source goes to the last of the
    target, so that nothing is lost."""
    old, new = source.special, target.special
    for k, token in enumerate(old):
        matrix[token, new[min(k, len(new) - 1)]] = 1


def _listed(prompt: Prompt) -> str:
    """The words, punctuation in quotes."""
    return ", ".join(w if any(map(str.isalnum, w)) else repr(w) for w in prompt.texts) or "none"
