"""The optimizers of one-shot tuning."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch

ADAMW, FACTORED = "AdamW", "factored AdamW"
BYTES = {ADAMW: 16, FACTORED: 10}  # per trained weight: itself, its gradient, and what the optimizer keeps
TINY = 1e-30  # keeps the mean of gradients that are all zero from dividing


class FactoredAdamW(torch.optim.Optimizer):
    """AdamW whose second moment of a matrix is kept as its means over rows and over columns (Adafactor, Shazeer and
    Stern, ICML 2018, section 3), and whose first moment is kept in bfloat16. AdamW's learning rates still suit it."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter], lr: float, weight_decay: float):
        super().__init__(parameters, {"lr": lr, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": weight_decay})
        for group in self.param_groups:  # now, since a GradScaler may skip the first steps
            for parameter in group["params"]:
                self.state[parameter].update(first_state(FACTORED, parameter))

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    _update(parameter, self.state[parameter], group)


def make(name: str, parameters: Iterable[torch.nn.Parameter], lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """The optimizer of that name, one of `BYTES`. Raises `KeyError` for another name."""
    kinds = {ADAMW: partial(torch.optim.AdamW, betas=(0.9, 0.999), fused=True), FACTORED: FactoredAdamW}
    return kinds[name](parameters, lr=lr, weight_decay=weight_decay)


def first_state(name: str, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
    """What the optimizer of that name keeps of a parameter, before the first step."""
    zeros = partial(torch.zeros, device=parameter.device, dtype=torch.float32)
    state = {"step": zeros(()), "exp_avg": torch.zeros_like(parameter)}
    if name == ADAMW:
        return {**state, "exp_avg_sq": torch.zeros_like(parameter)}
    state["exp_avg"] = state["exp_avg"].to(torch.bfloat16)
    if parameter.ndim != 2:
        return {**state, "exp_avg_sq": torch.zeros_like(parameter)}
    rows, columns = parameter.shape
    return {**state, "rows": zeros(rows), "columns": zeros(columns)}


def _update(parameter: torch.Tensor, state: dict[str, torch.Tensor], group: dict) -> None:
    (beta, beta_of_squares), square = group["betas"], parameter.grad.square()
    state["step"] += 1
    if parameter.ndim == 2:
        rows = state["rows"].lerp_(square.mean(1), 1 - beta_of_squares)
        columns = state["columns"].lerp_(square.mean(0), 1 - beta_of_squares)
        second = torch.outer(rows / rows.mean().clamp_min(TINY), columns)
    else:
        second = state["exp_avg_sq"].lerp_(square, 1 - beta_of_squares)
    first = state["exp_avg"].float().lerp_(parameter.grad, 1 - beta)
    state["exp_avg"].copy_(first)
    unbiased = lambda moment, beta: moment / (1 - beta ** state["step"])
    change = unbiased(first, beta) / (unbiased(second, beta_of_squares).sqrt() + group["eps"])
    parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(change, alpha=group["lr"])
