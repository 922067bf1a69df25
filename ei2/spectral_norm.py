"""The normalized mapping of STAM: projections with a limited spectral norm, which bounds the variance shift.

During training, the largest singular value σ comes from power iteration in float32 with persistent vectors (Miyato et
al., ICLR 2018). At the start and at the end it comes from a Krylov subspace, because power iteration alone leaves σ up
to 2 % too small when the largest singular values are close together.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch.nn.utils import parametrize

KRYLOV_VECTORS = 40  # accurate to 1e-4, up to SDXL's widths
NOISE = 0.1  # relative to the vector
TINY = 1e-30


class SpectralNormalization(torch.nn.Module):
    """A parametrization of a matrix `out in`: `bounded` gives W / max(σ, 1), `strict` gives W / σ.

    With `bounded` a zero matrix stays zero; `strict` raises `ValueError` for a zero matrix.
    """

    def __init__(self, weight: torch.Tensor, mode: str):
        super().__init__()
        if mode == "strict" and not weight.any():
            raise ValueError("strict normalization divides by the spectral norm: the matrix must not be zero.")
        self.mode = mode
        generator = torch.Generator(device="cpu").manual_seed(0)
        left = torch.randn(weight.shape[0], generator=generator).to(weight.device)
        self.register_buffer("left", F.normalize(left, dim=0))
        self.register_buffer("right", F.normalize(torch.ones(weight.shape[1], device=weight.device), dim=0))
        self.converge(weight)

    @torch.no_grad()
    def iterate(self, weight: torch.Tensor) -> None:
        """One power iteration: enough per training step, because the weight changes slowly. Never waits for a GPU."""
        weight = weight.float()
        right = weight.T @ self.left
        length = right.norm()
        # a zero matrix has no direction: keep the old vectors and avoid a division by zero
        right = torch.where(length > 0, right / length.clamp(min=TINY), self.right)
        left = weight @ right
        length = left.norm()
        self.left.copy_(torch.where(length > 0, left / length.clamp(min=TINY), self.left))
        self.right.copy_(right)

    @torch.no_grad()
    def converge(self, weight: torch.Tensor) -> None:
        """Sets the singular vectors to the best ones in the Krylov subspace of WᵀW from the current vector (Lanczos),
        with some noise: from a singular vector alone, no other one is found."""
        weight = weight.float()
        noise = torch.randn(len(self.left), generator=torch.Generator().manual_seed(1)).to(self.left)
        right = F.normalize(weight.T @ (self.left + NOISE * F.normalize(noise, dim=0)), dim=0)
        basis = right[:, None]
        for _ in range(min(KRYLOV_VECTORS, *weight.shape) - 1):
            right = F.normalize(weight.T @ (weight @ basis[:, -1]), dim=0)
            for _ in range(2):  # twice, because rounding spoils the orthogonality of one pass
                right = right - basis @ (basis.T @ right)
            length = right.norm()
            if length < 1e-5:  # no new direction: the subspace is complete
                break
            basis = torch.cat([basis, right[:, None] / length], dim=1)
        left, sigmas, mix = torch.linalg.svd(weight @ basis, full_matrices=False)
        if sigmas[0] > 0:
            self.left.copy_(left[:, 0])
            self.right.copy_(basis @ mix[0])

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            if self.training:
                self.iterate(weight)
            return _Divided.apply(weight, self.left, self.right, 1.0 if self.mode == "bounded" else 0.0)


class _Divided(torch.autograd.Function):
    """W / max(σ, `least`) with σ = uᵀ W v and ∂σ/∂W = u vᵀ, as one operation instead of a chain of small ones: a UNet
    would run hundreds of them per step."""

    @staticmethod
    def forward(ctx, weight, left, right, least):
        sigma = torch.dot(left, weight.float() @ right)
        divisor = sigma.clamp(min=least) if least else sigma
        result = (weight / divisor).to(weight.dtype)
        # clones, so that a later iteration can change the vectors before this graph's backward pass
        ctx.save_for_backward(result, left.clone(), right.clone(), divisor, sigma > least if least else sigma != 0)
        return result

    @staticmethod
    def backward(ctx, grad):
        result, left, right, divisor, moves = ctx.saved_tensors
        along = (grad * result).sum() * moves  # where max(σ, least) is constant, σ has no gradient
        return torch.addr(grad, left, right * along, alpha=-1) / divisor, None, None, None


def spectral_normalize(linear: torch.nn.Linear, mode: str) -> None:
    """Adds the normalization to a layer's weight for training; `effective_weight` returns the result."""
    parametrize.register_parametrization(linear, "weight", SpectralNormalization(linear.weight.detach(), mode))


@torch.no_grad()
def effective_weight(linear: torch.nn.Linear) -> torch.Tensor:
    """The normalized matrix with converged σ, for saving and for use without power iteration. The layer and its
    singular vectors do not change, so training can continue."""
    if not parametrize.is_parametrized(linear, "weight"):
        return linear.weight.detach().clone()
    parametrization = linear.parametrizations.weight
    normalization = copy.deepcopy(parametrization[0]).eval()
    normalization.converge(parametrization.original)
    return normalization(parametrization.original)
