"""Makes a wider miniature from a narrower, trained one.

Every two channels become three; the third is the mean of the two. Apart from a little noise, nothing reads the third
yet. The mean of a norm's group of channels does not change, and its variance changes by a factor for which the norm's
weight compensates. The wider model is close to the narrower one, not equal to it. Attention gets copies of whole heads.
"""

from __future__ import annotations

import torch

from .architecture import HEAD_WIDTH, TRAIN_STEPS

NOISE = 0.05  # of a weight's standard deviation
SPREAD = (2.5 / 3) ** 0.5  # a group's deviation with the third channel, relative to that without, if all are alike
RIDGE = 1e-4  # roughly, of a sinusoid's mean square


def widen(narrow: dict[str, torch.Tensor], wide: dict[str, torch.Tensor], generator: torch.Generator) -> dict:
    """The weights `narrow` in the shapes of `wide`, half as wide again. Raises ValueError for other proportions."""
    result = {}
    for name, target in wide.items():
        weight = narrow[name].float()
        if name == "time_embed.0.weight":
            weight = _time_embedding(weight, target.shape[1])
        for dim in range(weight.ndim):
            if weight.shape[dim] == target.shape[dim]:
                continue
            if 2 * target.shape[dim] != 3 * weight.shape[dim]:
                raise ValueError(
                    f"{name} of {tuple(weight.shape)} cannot become {tuple(target.shape)}: "
                    "only half as wide again is possible."
                )
            heads = (dim == 0 and name.endswith(("to_q.weight", "to_k.weight", "to_v.weight"))) or (
                dim == 1 and name.endswith("to_out.0.weight")
            )
            blocks = weight.movedim(dim, 0)
            blocks = blocks.reshape(-1, 2, HEAD_WIDTH if heads else 1, *blocks.shape[1:])
            third = torch.zeros_like(blocks[:, :1]) if dim == 1 else blocks[:, :1] if heads else blocks.mean(1, True)
            weight = torch.cat([blocks, third], dim=1).flatten(0, 2).movedim(0, dim)
        if weight.ndim > 1 and weight.shape != narrow[name].shape:
            weight = weight + NOISE * weight.std() * torch.randn(weight.shape, generator=generator)
        elif "norm" in name and name.endswith("weight") or name.endswith(("layers.0.weight", "out.0.weight")):
            weight = weight * SPREAD
        result[name] = weight
    return result


def _time_embedding(weight: torch.Tensor, width: int) -> torch.Tensor:
    """The layer `o i` whose output for `width` sinusoids approximates that of `weight` for its own, by least squares
    over all steps, with a penalty on large weights, which half precision could not sum."""
    from comfy.ldm.modules.diffusionmodules.util import timestep_embedding

    steps = torch.arange(TRAIN_STEPS).float()
    old, new = (timestep_embedding(steps, n).double() for n in (weight.shape[1], width))
    normal = new.T @ new + RIDGE * TRAIN_STEPS * torch.eye(width, dtype=torch.float64)
    return torch.linalg.solve(normal, new.T @ old @ weight.double().T).T.float()
