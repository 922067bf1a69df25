"""The optimizers of tuning: the factored AdamW against torch's AdamW, and what each keeps."""

from __future__ import annotations

import pytest
import torch

from ei2.optimizers import ADAMW, BYTES, FACTORED, first_state, make

RATE, DECAY = 1e-2, 1e-2


def values(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def moved(name: str, gradients: list[torch.Tensor]) -> torch.Tensor:
    """A parameter after one step per gradient."""
    parameter = torch.nn.Parameter(values(*gradients[0].shape))
    optimizer = make(name, [parameter], RATE, DECAY)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach()


@pytest.mark.parametrize("shape", [(12,), (3, 4, 2, 2)])
def test_what_is_no_matrix_moves_as_with_adamw(shape):
    """Up to the rounding of the first moment to bfloat16, 1 in 256 of what moved."""
    gradients = [values(*shape, seed=i) for i in range(1, 9)]
    torch.testing.assert_close(moved(FACTORED, gradients), moved(ADAMW, gradients), atol=8 * RATE / 256, rtol=0)


def test_a_matrix_of_rank_one_moves_as_with_adamw():
    """Its squares are the product of their means over rows and columns, so factoring loses nothing."""
    scale = torch.outer(values(5, seed=1), values(7, seed=2))
    gradients = [scale * values(1, seed=i) for i in range(3, 11)]
    torch.testing.assert_close(moved(FACTORED, gradients), moved(ADAMW, gradients), atol=8 * RATE / 256, rtol=0)


def test_any_matrix_moves_like_one_with_the_means_of_its_squares():
    """Against the definition in float64: one step, so that nothing was rounded yet."""
    gradient = values(4, 6, seed=1)
    square = gradient.double().square()
    second = square.mean(1, keepdim=True) * square.mean(0) / square.mean()
    expected = values(4, 6).double() * (1 - RATE * DECAY) - RATE * gradient.double() / second.sqrt()
    torch.testing.assert_close(moved(FACTORED, [gradient]).double(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", BYTES)
def test_without_a_gradient_only_the_decay_acts(name):
    """The first step of a temporal module: its last matrix is zero, so the others have gradients of zero."""
    after = moved(name, [torch.zeros(4, 6)])
    torch.testing.assert_close(after, values(4, 6) * (1 - RATE * DECAY))


@pytest.mark.parametrize("name", BYTES)
def test_bytes(name):
    parameter = torch.nn.Parameter(values(320, 320))
    kept = sum(tensor.nbytes for tensor in first_state(name, parameter).values())
    assert (2 * parameter.nbytes + kept) / parameter.numel() == pytest.approx(BYTES[name], rel=0.01)


def test_first_state_is_what_torch_keeps():
    parameter = torch.nn.Parameter(values(4, 6))
    optimizer = make(ADAMW, [parameter], RATE, DECAY)
    parameter.grad = values(4, 6)
    optimizer.step()
    expected = first_state(ADAMW, parameter)
    assert {name: value.shape for name, value in optimizer.state[parameter].items()} == {
        name: value.shape for name, value in expected.items()
    }


def test_a_state_is_there_before_the_first_step():
    """A GradScaler skips first steps whose gradients overflow; a snapshot may be made then."""
    parameter = torch.nn.Parameter(values(4, 6))
    optimizer = make(FACTORED, [parameter], RATE, DECAY)
    assert optimizer.state[parameter].keys() == first_state(FACTORED, parameter).keys()


def test_another_name():
    with pytest.raises(KeyError, match="Adam"):
        make("Adam", [torch.nn.Parameter(values(2))], RATE, DECAY)
