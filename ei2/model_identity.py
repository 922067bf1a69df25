"""Which model a tune was learned on, recognised by its weights, so that it is not used on another by mistake."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class ModelIdentity:
    """A base model, whatever device and number format it is loaded in.

    `family`: digest of the names and shapes of its weights and of what it predicts; `name`: the same for readers;
    `sample`: some of its weights, float32 `n`, none where they cannot be read; `rounding`, `smallest`: the relative
    error and the smallest number of the coarsest format any weight is kept in; `patches`: digest of the LoRAs and
    other patches on it, empty without.
    """

    family: str
    name: str
    sample: torch.Tensor
    rounding: float
    smallest: float
    patches: str = ""

    def has_weights_of(self, other: ModelIdentity) -> bool:
        """Whether the weights are the same but for the rounding of the formats, as far as is known."""
        if not len(self.sample) or not len(other.sample):
            return True
        if self.sample.shape != other.sample.shape:
            return False
        rounding, smallest = max(self.rounding, other.rounding), max(self.smallest, other.smallest)
        size = torch.maximum(self.sample.abs(), other.sample.abs())
        return bool(((self.sample - other.sample).abs() <= rounding * size + smallest).all())


def check_base(made_on: ModelIdentity, model: ModelIdentity, what: str = "tune") -> str:
    """A warning where `what` was made on another checkpoint of the same family or with other LoRAs; empty where not.
    Raises `ValueError`, naming both, for another family."""
    if made_on.family != model.family:
        raise ValueError(
            f"The {what} was made on {made_on.name}, but this model is {model.name}: load a checkpoint of the family "
            "it was made on, or tune again on this one."
        )
    if not model.has_weights_of(made_on):
        return (
            f"The {what} was made on another checkpoint of the same family ({made_on.name}): it usually works, but the "
            "clip may come back less exactly. Tune again on this checkpoint if it does."
        )
    if made_on.patches != model.patches:
        had = "with other LoRAs or patches than this one has" if made_on.patches else "without LoRA or patches"
        return f"The {what} was made on a model {had}: the clip may come back less exactly."
    return ""
