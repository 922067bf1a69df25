"""The normalized mapping of STAM: projections whose spectral norm is restricted, so that the variance shift is bounded.

The largest singular value σ comes from power iteration in float32 with persisted vectors (Miyato et al., ICLR 2018).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.nn.utils import parametrize

INITIAL_ITERATIONS = 30
STEP_ITERATIONS = 1  # per training step: the vectors follow the slowly moving weight


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
        self.iterate(weight, INITIAL_ITERATIONS)

    @torch.no_grad()
    def iterate(self, weight: torch.Tensor, count: int) -> None:
        """Moves the singular vectors' estimates on by `count` power iterations."""
        weight = weight.float()
        for _ in range(count):
            right = F.normalize(weight.T @ self.left, dim=0)
            if not right.any():  # a zero matrix has no direction: keep the old vectors
                return
            self.right.copy_(right)
            self.left.copy_(F.normalize(weight @ right, dim=0))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.iterate(weight, STEP_ITERATIONS)
        with torch.autocast(weight.device.type, enabled=False):
            # the clones let a later iteration move the vectors while this graph still waits for its backward
            sigma = self.left.clone() @ weight.float() @ self.right.clone()
        return weight / (sigma.clamp(min=1.0) if self.mode == "bounded" else sigma)


def spectral_normalize(linear: torch.nn.Linear, mode: str) -> None:
    """Puts the restriction on a layer's weight for training; `bake` makes it permanent."""
    parametrize.register_parametrization(linear, "weight", SpectralNormalization(linear.weight.detach(), mode))


@torch.no_grad()
def effective_weight(linear: torch.nn.Linear) -> torch.Tensor:
    """The normalized matrix, with σ iterated to convergence: what is saved and used without power iteration."""
    if not parametrize.is_parametrized(linear, "weight"):
        return linear.weight.detach().clone()
    parametrization = linear.parametrizations.weight
    normalization = parametrization[0]
    normalization.iterate(parametrization.original, INITIAL_ITERATIONS)
    was_training = normalization.training
    normalization.eval()
    weight = linear.weight.detach().clone()
    normalization.train(was_training)
    return weight
