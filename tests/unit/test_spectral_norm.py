"""The restricted projections against exact singular values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ei2.spectral_norm import effective_weight, spectral_normalize
from ei2.temporal import STAM


def linear(out: int, width: int, largest: float, seed: int = 0) -> torch.nn.Linear:
    """A layer whose largest singular value is `largest`."""
    layer = torch.nn.Linear(width, out, bias=False)
    weight = np.random.default_rng(seed).standard_normal((out, width))
    weight *= largest / np.linalg.svd(weight, compute_uv=False)[0]
    layer.weight.data.copy_(torch.from_numpy(weight))
    return layer


def largest_singular_value(weight: torch.Tensor) -> float:
    return float(np.linalg.svd(weight.detach().double().numpy(), compute_uv=False)[0])


SIZES = [(3, 3), (64, 64), (320, 320), (40, 300), (300, 40), (1, 16)]


@pytest.mark.parametrize("out, width", SIZES)
@pytest.mark.parametrize(
    "mode, largest, expected",
    [("bounded", 5.0, 1.0), ("bounded", 0.4, 0.4), ("strict", 5.0, 1.0), ("strict", 0.4, 1.0)],
)
def test_against_the_svd(out, width, mode, largest, expected):
    layer = linear(out, width, largest)
    before = layer.weight.detach().clone()
    spectral_normalize(layer, mode)
    layer.eval()
    assert largest_singular_value(layer.weight) == pytest.approx(expected, abs=1e-3)
    weight = effective_weight(layer)
    assert largest_singular_value(weight) == pytest.approx(expected, abs=1e-3)
    ratio = weight.norm() / before.norm()
    torch.testing.assert_close(weight, before * ratio)  # the direction stays


@pytest.mark.parametrize("seed", range(3))
def test_the_flat_spectrum_of_a_fresh_layer(seed):
    """A random square matrix has its largest singular values close together, where power iteration alone is slow."""
    layer = torch.nn.Linear(640, 640, bias=False)
    torch.nn.init.xavier_uniform_(layer.weight, generator=torch.Generator().manual_seed(seed))
    spectral_normalize(layer, "bounded")
    assert largest_singular_value(effective_weight(layer)) <= 1 + 1e-3


def test_a_larger_singular_value_beside_a_settled_one_is_found():
    """Power iteration has settled on one axis; then another one grows."""
    layer = torch.nn.Linear(8, 8, bias=False)
    layer.weight.data.copy_(torch.diag(torch.tensor([2.0] + [1.0] * 7)))
    spectral_normalize(layer, "bounded")
    for _ in range(200):
        layer(torch.zeros(1, 8))
    layer.parametrizations.weight.original.data[1, 1] = 3.0
    assert largest_singular_value(effective_weight(layer)) <= 1 + 1e-3


def test_an_orthogonal_matrix_is_scaled():
    layer = torch.nn.Linear(32, 32, bias=False)
    torch.nn.init.orthogonal_(layer.weight, gain=3, generator=torch.Generator().manual_seed(0))
    spectral_normalize(layer, "bounded")
    np.testing.assert_allclose(np.linalg.svd(effective_weight(layer).numpy(), compute_uv=False), 1, atol=1e-5)


@pytest.mark.parametrize("scale", [0.0, 1e-3])
def test_bounded_leaves_small_and_zero_matrices_exactly_alone(scale):
    layer = linear(24, 24, 1.0)
    layer.weight.data.mul_(scale)
    before = layer.weight.detach().clone()
    spectral_normalize(layer, "bounded")
    layer(torch.ones(2, 24)).sum().backward()
    assert torch.equal(layer.weight, before)
    assert torch.equal(effective_weight(layer), before)
    assert torch.isfinite(layer.parametrizations.weight.original.grad).all()


def test_a_matrix_that_grows_from_zero_is_bounded():
    """The output projection starts at zero and may not escape the bound once it has learned something."""
    layer = torch.nn.Linear(16, 16, bias=False)
    layer.weight.data.zero_()
    spectral_normalize(layer, "bounded")
    grown = linear(16, 16, 7.0).weight.data
    for share in (0.0, 0.3, 0.7, 1.0):
        layer.parametrizations.weight.original.data.copy_(share * grown)
        layer(torch.ones(1, 16))
    assert largest_singular_value(effective_weight(layer)) == pytest.approx(1, abs=1e-3)


def test_strict_refuses_a_zero_matrix():
    layer = torch.nn.Linear(8, 8, bias=False)
    layer.weight.data.zero_()
    with pytest.raises(ValueError, match="must not be zero"):
        spectral_normalize(layer, "strict")


def test_a_layer_without_restriction_keeps_its_weight():
    layer = linear(8, 8, 4.0)
    weight = effective_weight(layer)
    assert torch.equal(weight, layer.weight)
    weight.zero_()  # a copy
    assert layer.weight.any()


@pytest.mark.parametrize("mode", ["bounded", "strict"])
def test_the_bound_holds_while_training(mode):
    """Towards a matrix four times too large: one power iteration per step follows closely enough."""
    layer, target = linear(32, 32, 2.0), linear(32, 32, 4.0, seed=1).weight.detach()
    spectral_normalize(layer, mode)
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-3)  # thirty times the default of tuning
    for _ in range(150):
        optimizer.zero_grad()
        weight = layer.weight  # each use while training moves the singular vectors on
        assert largest_singular_value(weight) <= 1.1
        (weight - target).square().mean().backward()
        optimizer.step()
    assert largest_singular_value(effective_weight(layer)) == pytest.approx(1, abs=1e-3)
    assert largest_singular_value(layer.parametrizations.weight.original) > 1.2  # it is the restriction that holds it


@pytest.mark.parametrize("mode", ["bounded", "strict"])
@pytest.mark.parametrize("largest", [0.5, 3.0])
def test_the_gradient_is_that_of_the_formula(mode, largest):
    """W / max(σ, 1) or W / σ with σ = uᵀ W v at fixed u and v, by autograd's own rules in float64."""
    layer = linear(12, 9, largest).double()
    spectral_normalize(layer, mode)
    normalization = layer.parametrizations.weight[0].eval()
    wanted = torch.randn(12, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (layer.weight * wanted).sum().backward()

    weight = layer.parametrizations.weight.original.detach().clone().requires_grad_()
    sigma = normalization.left.double() @ weight @ normalization.right.double()
    (weight / (sigma.clamp(min=1) if mode == "bounded" else sigma) * wanted).sum().backward()
    torch.testing.assert_close(layer.parametrizations.weight.original.grad, weight.grad, atol=1e-6, rtol=1e-6)


def test_two_forward_passes_before_one_backward():
    """Checkpointing and several chunks do this: the second pass must not spoil the first one's graph."""
    layer = linear(16, 16, 3.0)
    spectral_normalize(layer, "bounded")
    x = torch.ones(2, 16)
    (layer(x) + layer(2 * x)).sum().backward()
    assert torch.isfinite(layer.parametrizations.weight.original.grad).all()


@pytest.mark.parametrize("mode", ["bounded", "strict", "off"])
@pytest.mark.parametrize(
    "scope, restricted", [("qkvo", ("to_q", "to_k", "to_v", "to_out")), ("vo", ("to_v", "to_out"))]
)
def test_the_effective_matrices_of_stam(mode, scope, restricted):
    """W / max(σ, 1), W / σ or W, in the scope and outside of it, by NumPy's singular values."""
    module = STAM(16, 4)
    before = {}
    for seed, (name, largest) in enumerate([("to_q", 4.0), ("to_k", 0.3), ("to_v", 0.3), ("to_out", 4.0)]):
        getattr(module, name).weight.data.copy_(linear(16, 16, largest, seed).weight.data)
        before[name] = getattr(module, name).weight.detach().double().numpy().copy()
    module.restrict(mode, scope)
    for name, weight in before.items():
        sigma = np.linalg.svd(weight, compute_uv=False)[0]
        by = {"bounded": max(sigma, 1.0), "strict": sigma, "off": 1.0}[mode] if name in restricted else 1.0
        effective = effective_weight(getattr(module, name)).numpy()
        np.testing.assert_allclose(effective, weight / by, rtol=1e-3, atol=1e-6, err_msg=name)
