"""Identifies the model of a tune by its weights, so a tune is not applied to a different model by mistake."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class ModelIdentity:
    """A base model, independent of the device and number format it is loaded in.

    `family`: digest of its weights' names and shapes and of its prediction type; `name`: the same in
    readable form; `sample`: some of its weights, float32 `n`, empty if they cannot be read; `rounding`,
    `smallest`: the relative error and the smallest number of the coarsest format of any weight; `patches`:
    digest of its LoRAs and other patches, empty if none.
    """

    family: str
    name: str
    sample: torch.Tensor
    rounding: float
    smallest: float
    patches: str = ""

    def has_weights_of(self, other: ModelIdentity) -> bool:
        """Whether the weights are equal up to the formats' rounding, or unknown."""
        if not len(self.sample) or not len(other.sample):
            return True
        if self.sample.shape != other.sample.shape:
            return False
        rounding, smallest = max(self.rounding, other.rounding), max(self.smallest, other.smallest)
        size = torch.maximum(self.sample.abs(), other.sample.abs())
        return bool(((self.sample - other.sample).abs() <= rounding * size + smallest).all())


def check_base(made_on: ModelIdentity, model: ModelIdentity, what: str = "tune") -> str:
    """A warning if `what` was made on another checkpoint of the same family or with other LoRAs; otherwise empty.
    Raises `ValueError` with both names for another family."""
    if made_on.family != model.family:
        raise ValueError(
            f"The {what} was made on {made_on.name}, but this model is {model.name}: load a checkpoint of the family "
            "it was made on, or tune again on this one."
        )
    if not model.has_weights_of(made_on):
        return (
            f"The {what} was made on another checkpoint of the same family ({made_on.name}): it usually works, but the "
            "clip may come back less exactly. In that case tune again on this checkpoint."
        )
    if made_on.patches != model.patches:
        had = "with other LoRAs or patches than this one has" if made_on.patches else "without LoRA or patches"
        return f"The {what} was made on a model {had}: the clip may come back less exactly."
    return ""
