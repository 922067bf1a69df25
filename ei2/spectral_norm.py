"""The normalized mapping of STAM: projections whose spectral norm is restricted, so that the variance shift is bounded.

While training, the largest singular value σ comes from power iteration in float32 with persisted vectors (Miyato et
al., ICLR 2018); at the start and at the end from a Krylov subspace, since power iteration alone would leave σ up to 2 %
short where the largest singular values lie close together.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch.nn.utils import parametrize

KRYLOV_VECTORS = 40  # σ is then right to 1e-4, up to SDXL's widths
TINY = 1e-30


class SpectralNormalization(torch.nn.Module):
    """A parametrization of a matrix `out in`: `bounded` gives W / max(σ, 1), `strict` gives W / σ.

    `bounded` keeps a zero matrix zero; `strict` needs a non-zero one and raises `ValueError` otherwise.
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
        """One power iteration: enough per training step, since the weight moves slowly. It never waits for a GPU."""
        weight = weight.float()
        right = weight.T @ self.left
        length = right.norm()
        # a zero matrix has no direction: keep the old vectors (and divide by no zero)
        right = torch.where(length > 0, right / length.clamp(min=TINY), self.right)
        left = weight @ right
        length = left.norm()
        self.left.copy_(torch.where(length > 0, left / length.clamp(min=TINY), self.left))
        self.right.copy_(right)

    @torch.no_grad()
    def converge(self, weight: torch.Tensor) -> None:
        """Sets the singular vectors to the best in the Krylov subspace of WᵀW that the present ones span (Lanczos)."""
        weight = weight.float()
        right = F.normalize(weight.T @ self.left, dim=0)
        basis = right[:, None]
        for _ in range(min(KRYLOV_VECTORS, *weight.shape) - 1):
            right = F.normalize(weight.T @ (weight @ basis[:, -1]), dim=0)
            for _ in range(2):  # twice, since rounding spoils the orthogonality of the first
                right = right - basis @ (basis.T @ right)
            length = right.norm()
            if length < 1e-5:  # nothing new: the subspace is complete
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
    """W / max(σ, `least`) with σ = uᵀ W v, whose gradient by W is u vᵀ: one operation instead of a chain of small ones,
    of which a UNet would have hundreds per step."""

    @staticmethod
    def forward(ctx, weight, left, right, least):
        sigma = torch.dot(left, weight.float() @ right)
        divisor = sigma.clamp(min=least) if least else sigma
        result = (weight / divisor).to(weight.dtype)
        # the clones let a later iteration move the vectors while this graph still waits for its backward
        ctx.save_for_backward(result, left.clone(), right.clone(), divisor, sigma > least if least else sigma != 0)
        return result

    @staticmethod
    def backward(ctx, grad):
        result, left, right, divisor, moves = ctx.saved_tensors
        along = (grad * result).sum() * moves  # where max(σ, least) is constant, σ has no gradient
        return torch.addr(grad, left, right * along, alpha=-1) / divisor, None, None, None


def spectral_normalize(linear: torch.nn.Linear, mode: str) -> None:
    """Puts the restriction on a layer's weight for training; `effective_weight` gives the result to keep."""
    parametrize.register_parametrization(linear, "weight", SpectralNormalization(linear.weight.detach(), mode))


@torch.no_grad()
def effective_weight(linear: torch.nn.Linear) -> torch.Tensor:
    """The normalized matrix, with σ converged: what is saved and used without power iteration. The layer and its
    singular vectors stay as they are, so that a training may go on."""
    if not parametrize.is_parametrized(linear, "weight"):
        return linear.weight.detach().clone()
    parametrization = linear.parametrizations.weight
    normalization = copy.deepcopy(parametrization[0]).eval()
    normalization.converge(parametrization.original)
    return normalization(parametrization.original)
