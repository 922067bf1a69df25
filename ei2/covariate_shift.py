"""Covariate shift: how far a temporal module moves the features that the frozen layers after it expect.

EI² (Zhang et al., NeurIPS 2023, arXiv 2305.17431) traces flicker and ignored words to this shift. Per channel, over
all frames and tokens:

    mean shift     |mean(changed) - mean(reference)| / std(reference)
    log-std shift  |log(std(changed) / std(reference))|, half the shift of the log-variance

both averaged over the channels of a block, then over timesteps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

DEAD = 1e-3  # a channel's std is raised to at least this fraction of its block's typical std
MEASURES = ("mean", "log_std", "module_mean", "module_log_std")


class FeatureStatistics:
    """Mean and standard deviation (population) per channel, accumulated in chunks; the features are not kept.

    A chunk is reduced in float32, or in float64 if that is its type. Chunks are merged in float64 (Chan et al., 1983),
    which avoids the cancellation of sums of squares.
    """

    def __init__(self):
        self.count = 0
        self.mean = self.variance = torch.zeros((), dtype=torch.float64)  # `c` after the first chunk

    def add(self, features: torch.Tensor) -> None:
        """Adds the next chunk, `... c`."""
        tokens = features.detach().flatten(0, -2)
        if tokens.dtype != torch.float64:
            tokens = tokens.float()
        variance, mean = (value.cpu().double() for value in torch.var_mean(tokens, dim=0, correction=0))
        share = tokens.shape[0] / (self.count + tokens.shape[0])
        change = mean - self.mean
        self.mean = self.mean + share * change
        self.variance = (1 - share) * self.variance + share * variance + share * (1 - share) * change.square()
        self.count += tokens.shape[0]

    @property
    def std(self) -> torch.Tensor:
        return self.variance.sqrt()


def feature_shift(changed: FeatureStatistics, reference: FeatureStatistics) -> tuple[float, float]:
    """Mean shift and log-std shift of one block, averaged over channels.

    Dead channels would divide by zero, so each std, on both sides, is clamped to at least a thousandth of the
    reference's root mean square over channels. Raises `ValueError` when the reference does not vary in any channel.
    """
    typical = reference.variance.mean().sqrt()
    if typical == 0:
        raise ValueError(
            "The model's features do not vary, so there is nothing to compare with: use more frames or larger pictures."
        )
    std, expected = changed.std.clamp(min=DEAD * typical), reference.std.clamp(min=DEAD * typical)
    mean_shift = (changed.mean - reference.mean).abs() / expected
    return float(mean_shift.mean()), float((std / expected).log().abs().mean())


@dataclass(frozen=True)
class CovariateShift:
    """The shifts of every transformer block, in execution order, averaged over channels and `timesteps`.

    `mean`, `log_std`: features after the temporal module, compared with the plain image model's at the same place.
    `module_mean`, `module_log_std`: the temporal module's output compared with its own input. This excludes the effect
    of spatial attention, joint GroupNorms and earlier blocks; zero if there is no module.
    """

    blocks: list[str]
    mean: list[float]
    log_std: list[float]
    module_mean: list[float]
    module_log_std: list[float]
    timesteps: list[int]

    def average(self, measure: str) -> float:
        """The mean over blocks of one of `MEASURES`."""
        values = getattr(self, measure)
        return sum(values) / len(values)

    def table(self) -> str:
        """A Markdown table, aligned to be readable as plain text: one row per block, then the mean."""
        rows = [["block", "mean shift", "log-std shift", "module: mean shift", "module: log-std shift"]]
        values = list(zip(*(getattr(self, measure) for measure in MEASURES)))
        values.append(tuple(self.average(measure) for measure in MEASURES))
        rows += [[name, *(f"{v:.4f}" for v in row)] for name, row in zip([*self.blocks, "mean of blocks"], values)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        align = lambda row: [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
        rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
        lines = [align(rows[0]), rule, *(align(row) for row in rows[1:])]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)
