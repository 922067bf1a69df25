"""Attention control against float64 NumPy, which forms every map."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ei2.attention import attention
from ei2.map_edit import MapEdit, attention_maps, controlled_attention, cross_steps_of, edited_maps, steps_of
from ei2.token_alignment import TokenMap

FRAMES, TOKENS, WORDS, HEADS, WIDTH = 2, 6, 5, 3, 4
REFINE = TokenMap(  # token 2 is new, tokens 2 and 3 of the source become tokens 3 and 4
    torch.tensor([[1.0, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]]),
    torch.tensor([1.0, 1, 0, 1, 1]),
)
REPLACE = TokenMap(  # token 1 becomes tokens 1 and 2
    torch.tensor([[1.0, 0, 0, 0, 0], [0, 0.5, 0.5, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 1]]),
    torch.ones(WORDS),
)
FACTORS = torch.tensor([1.0, 1, 2.5, 1, -0.5])


def attend(q, k, v):
    return attention(q, k, v, HEADS)


@pytest.fixture
def qkv():
    """Source q, k and target q, k, v."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda tokens: torch.randn(FRAMES, tokens, HEADS * WIDTH, generator=generator, dtype=torch.float64)
    return draw(TOKENS), draw(WORDS), draw(TOKENS), draw(WORDS), draw(WORDS)


def maps_by_formula(q: torch.Tensor, k: torch.Tensor) -> np.ndarray:
    """softmax(q kᵀ / √width) by frame and head."""
    maps = np.zeros((FRAMES, HEADS, TOKENS, WORDS))
    for frame in range(FRAMES):
        for head in range(HEADS):
            part = slice(head * WIDTH, (head + 1) * WIDTH)
            scores = q[frame, :, part].numpy() @ k[frame, :, part].numpy().T / np.sqrt(WIDTH)
            weights = np.exp(scores)
            maps[frame, head] = weights / weights.sum(axis=1, keepdims=True)
    return maps


def edit_by_formula(base: np.ndarray, own: np.ndarray, tokens: TokenMap, taken: bool, factors: np.ndarray):
    """Prompt-to-Prompt, map by map: replace or refine, while taken, then reweight."""
    replaced = np.einsum("...pw,wn->...pn", base, tokens.matrix.double().numpy())
    shared = tokens.shared.double().numpy()
    edited = replaced * shared + own * (1 - shared) if taken else own
    return edited * factors


def values_by_formula(maps: np.ndarray, v: torch.Tensor) -> np.ndarray:
    parts = [maps[:, head] @ v[..., head * WIDTH : (head + 1) * WIDTH].numpy() for head in range(HEADS)]
    return np.concatenate(parts, axis=-1)


@pytest.mark.parametrize("factors", [torch.ones(WORDS), FACTORS], ids=["plain", "reweighted"])
@pytest.mark.parametrize("taken", [True, False])
@pytest.mark.parametrize("tokens", [REPLACE, REFINE], ids=["replace", "refine"])
def test_two_attentions_equal_the_edited_maps(qkv, tokens, taken, factors):
    source_q, source_k, q, k, v = qkv
    edit = MapEdit.of(tokens, taken, factors)
    maps = edit_by_formula(
        maps_by_formula(source_q, source_k), maps_by_formula(q, k), tokens, taken, factors.double().numpy()
    )
    result = controlled_attention(source_q, source_k, q, k, v, edit, attend)
    np.testing.assert_allclose(result.numpy(), values_by_formula(maps, v), atol=1e-12)
    mean = edited_maps(attention_maps(source_q, source_k, HEADS), attention_maps(q, k, HEADS), edit)
    np.testing.assert_allclose(mean.numpy(), maps.mean(axis=1), atol=1e-12)


def test_only_what_counts_is_computed(qkv):
    calls = []
    counting = lambda *qkv: calls.append(qkv[0]) or attend(*qkv)
    ones = torch.ones(WORDS)
    for tokens, taken, queries in [(REPLACE, True, [0]), (REPLACE, False, [2]), (REFINE, True, [2, 0])]:
        calls.clear()
        controlled_attention(*qkv, MapEdit.of(tokens, taken, ones), counting)
        assert [id(call) for call in calls] == [id(qkv[i]) for i in queries]


def test_a_factor_of_zero_everywhere_leaves_nothing(qkv):
    result = controlled_attention(*qkv, MapEdit.of(REPLACE, True, torch.zeros(WORDS)), attend)
    assert torch.equal(result, torch.zeros_like(qkv[2]))


def test_what_an_edit_says_of_itself():
    ones = torch.ones(WORDS)
    assert MapEdit.of(REPLACE, False, ones).changes_nothing
    assert not MapEdit.of(REPLACE, False, FACTORS).changes_nothing
    assert MapEdit.of(REFINE, True, ones).needs_source
    assert not MapEdit.of(REFINE, False, FACTORS).needs_source


def test_maps_of_half_precision_are_formed_in_single(qkv):
    maps = attention_maps(qkv[0].half(), qkv[1].half(), HEADS)
    assert maps.dtype == torch.float32
    np.testing.assert_allclose(maps.sum(-1).numpy(), 1, atol=1e-6)


def test_a_whole_map_is_taken_by_exchanging_queries_and_keys(qkv):
    """Self-attention: the source's map times the target's values."""
    source_q, source_k, _, _, v = qkv
    expected = values_by_formula(maps_by_formula(source_q, source_k), v)
    np.testing.assert_allclose(attend(source_q, source_k, v).numpy(), expected, atol=1e-12)


def source_cross(share: float, steps: int) -> int:
    """How many steps the sources' table of replaced cross-attention marks: `steps + 1` rows, of which `steps` are
    read."""
    table = np.zeros(steps + 1)
    table[: int(share * len(table))] = 1
    return int(table[:steps].sum())


def source_late(steps: int) -> int:
    """In how many steps Vid2Vid-zero leaves its learned embeddings out."""
    return sum(i < steps * 0.5 for i in range(steps))


@pytest.mark.parametrize("share", [0, 0.2, 0.29, 0.4, 0.5, 0.7, 0.8, 1])
def test_shares_of_steps_are_those_of_the_sources(share):
    for steps in range(1, 200):
        assert steps_of(share, steps) == int(steps * share)
        assert cross_steps_of(share, steps) == source_cross(share, steps)
        assert cross_steps_of(0.5, steps) == source_late(steps)


def test_the_usual_numbers_of_steps():
    """Video-P2P's shares at its 50 steps; Vid2Vid-zero's at 12 and 13, where rounding shows."""
    assert (cross_steps_of(0.2, 50), steps_of(0.5, 50), steps_of(0.2, 50)) == (10, 25, 10)
    assert [cross_steps_of(0.8, steps) for steps in (12, 13, 50)] == [10, 11, 40]
    assert [cross_steps_of(0.5, steps) for steps in (12, 13, 50)] == [6, 7, 25]


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_shares_outside_the_sampling(share):
    for count in (steps_of, cross_steps_of):
        with pytest.raises(ValueError, match="from 0 to 1"):
            count(share, 50)
