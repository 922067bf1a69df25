"""Shared by the miniature's training scripts: the optimizer (torch's Muon for matrices and filters, AdamW for the
rest), the learning rate, the clock and the writing of checkpoints."""

from __future__ import annotations

import time
from pathlib import Path

import torch


class Optimizer:
    """Muon (orthogonalised momentum) on every weight with two or more dimensions except embeddings, AdamW on the rest.

    torch's Muon accepts only matrices, so a filter `o i h w` is passed as the matrix `o (i h w)`, a view that shares
    its memory.
    """

    def __init__(self, module: torch.nn.Module, lr: float, weight_decay: float = 0.01):
        embeddings = {id(p) for m in module.modules() if isinstance(m, torch.nn.Embedding) for p in m.parameters()}
        parameters = [p for p in module.parameters() if p.requires_grad]
        large = lambda p: p.ndim >= 2 and min(p.shape[0], p[0].numel()) > 4
        as_matrix = lambda p: large(p) and id(p) not in embeddings
        self.matrices = [(p, torch.nn.Parameter(_matrix(p.data))) for p in parameters if as_matrix(p)]
        others = [p for p in parameters if not as_matrix(p)]
        self.parameters = parameters
        self.lr = lr
        self.optimizers = [torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True)]
        if self.matrices:
            self.optimizers.append(
                torch.optim.Muon(
                    [m for _, m in self.matrices], lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
                )
            )

    def step(self, scale: float, clip: float = 1.0) -> None:
        """One update at learning rate `lr * scale`; gradients are clipped to norm `clip`, then cleared."""
        torch.nn.utils.clip_grad_norm_(self.parameters, clip)
        for parameter, matrix in self.matrices:
            matrix.grad = _matrix(parameter.grad)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.lr * scale
            optimizer.step()
        for parameter in self.parameters:
            parameter.grad = None

    def state_dict(self) -> list[dict]:
        """The state to resume from."""
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def load_state_dict(self, state: list[dict]) -> None:
        """Resumes from a `state_dict`."""
        for optimizer, saved in zip(self.optimizers, state):
            optimizer.load_state_dict(saved)


def _matrix(weight: torch.Tensor) -> torch.Tensor:
    """A view `o (h w i)` of a channels-last filter, or the matrix itself."""
    return weight if weight.ndim == 2 else weight.movedim(1, -1).flatten(1)


def rate(steps: int, cooling: float, warmup: int = 50) -> float:
    """Learning-rate factor for training that may be resumed: linear warm-up over the first `warmup` steps of a start,
    then constant; while `cooling` goes from 0 to 1, it falls linearly to 0."""
    return min(1.0, (steps + 1) / warmup) * (1 - cooling)


def clock(device: str) -> float:
    """Seconds of computing: on a CPU the time of this process, so other programs do not shorten the training."""
    return time.process_time() / torch.get_num_threads() if device == "cpu" else time.monotonic()


def save_whole(path: Path, state: dict) -> None:
    """Writes a checkpoint atomically."""
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    temporary.replace(path)
