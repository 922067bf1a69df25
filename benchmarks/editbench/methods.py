"""What EditBench compares: the methods, and the budgets they are given."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

REFERENCE = "Tune-A-Video"
OURS = "EI2"


@dataclass(frozen=True)
class Method:
    """One way of editing. `inflation`: options in which it differs from the EI2 preset; `preset`: its own preset
    instead; `tuned`: whether it learns the clip; `inversion_preset`: what the clip is inverted with, where that is
    not the method itself."""

    name: str
    inflation: tuple[tuple[str, Any], ...] = ()
    preset: str = OURS
    tuned: bool = True
    inversion_preset: str | None = None


def _changed(name: str, **inflation) -> Method:
    return Method(name, tuple(inflation.items()))


PRESETS = (
    Method("Per-frame", preset="Per-frame"),
    Method(REFERENCE, preset=REFERENCE),
    Method("Video-P2P attention", preset="Video-P2P"),
    Method("Vid2Vid-zero attention", preset="Vid2Vid-zero", tuned=False, inversion_preset="Per-frame"),
    Method(OURS),
)
ABLATIONS = (  # EI2 with one part changed
    _changed("EI2, SCA for FFAM", spatial="sca"),
    _changed("EI2, Layer Norm for IC", centering="layer_norm"),
    _changed("EI2, no temporal attention", temporal="none"),
    _changed("EI2, no normalization", normalization="off"),
    _changed("EI2, GroupNorm per frame", group_norm="frame"),
    _changed("EI2, after spatial attention", position="after_spatial"),
    _changed("EI2, coarse factor 4", coarse_factor=4),
    _changed("EI2, stride pooling", coarse_pool="stride"),
    _changed("EI2, dense for FFAM", spatial="dense"),
    _changed("EI2, first frame for FFAM", spatial="first_frame"),
)
CHOICES = (  # the other values of what the paper leaves open, tried on the development split only
    _changed("EI2, IC over frames and space", centering="frames_space"),
    _changed("EI2, IC over channels", centering="channels"),
    _changed("EI2, strict normalization", normalization="strict"),
    _changed("EI2, normalized v and o", normalization_scope="vo"),
)
METHODS = {method.name: method for method in (*PRESETS, *CHOICES, *ABLATIONS)}


@dataclass(frozen=True)
class Budget:
    """What a method may spend and how it is used. `strength`: of what was tuned, see `TuneResult.scaled`."""

    name: str
    steps: int
    learning_rate: float
    cfg: float
    strength: float = 1.0
    ddim_steps: int = 12

    def settings(self) -> dict[str, Any]:
        """For a row: everything but the name."""
        return {key: value for key, value in asdict(self).items() if key != "name"}


def _budget(name: str, steps: int = 100, learning_rate: float = 1e-3, cfg: float = 4.0, **others) -> Budget:
    return Budget(name, steps, learning_rate, cfg, **others)


EQUAL = _budget("equal")
SEARCH = (  # tried beside it on the development split, to choose by
    _budget("50 steps", steps=50),
    _budget("200 steps", steps=200),
    _budget("cfg 2", cfg=2.0),
    _budget("cfg 7", cfg=7.0),
    _budget("strength 0.7", strength=0.7),
    _budget("rate 3e-4", learning_rate=3e-4),
    _budget("50 steps, rate 3e-3", steps=50, learning_rate=3e-3),
)
BEST = {name: replace(EQUAL, name="best") for name in (OURS, REFERENCE, "Per-frame")}
QUICK = replace(EQUAL, steps=2, ddim_steps=2)
