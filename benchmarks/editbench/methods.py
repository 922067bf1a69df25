"""What EditBench compares: the methods, and the budgets they are given."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

REFERENCE = "Tune-A-Video"
OURS = "EI2"


@dataclass(frozen=True)
class Method:
    """One way of editing. `inflation`: options in which it differs from the EI2 preset; `preset`: its own preset
    instead; `tuned`: whether it learns the clip; `inversion`: the options with which the clip is inverted, where that
    is not the method itself."""

    name: str
    inflation: tuple[tuple[str, Any], ...] = ()
    preset: str = OURS
    tuned: bool = True
    inversion: tuple[tuple[str, Any], ...] = ()


def _changed(name: str, **inflation) -> Method:
    return Method(name, tuple(inflation.items()))


PRESETS = (
    Method("Per-frame", preset="Per-frame"),
    Method(REFERENCE, preset=REFERENCE),
    Method("Video-P2P attention", preset="Video-P2P"),
    # it inverts with plain self-attention in the same UNet, whose Group Norm stays joint over frames
    Method(
        "Vid2Vid-zero attention",
        preset="Vid2Vid-zero",
        tuned=False,
        inversion=(("spatial", "none"), ("temporal", "none")),
    ),
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

    def settings(self, method: Method) -> dict[str, Any]:
        """What a row says of how it was made; a row with other settings than these is out of date."""
        spent = {key: value for key, value in asdict(self).items() if key != "name"}
        if not method.tuned:
            del spent["steps"], spent["learning_rate"], spent["strength"]
        return {**spent, "inflation": dict(method.inflation)}


def _budget(name: str, steps: int = 200, learning_rate: float = 1e-3, cfg: float = 4.0, **others) -> Budget:
    return Budget(name, steps, learning_rate, cfg, **others)


EQUAL = _budget("equal")
SHORT = _budget("100 steps", steps=100)  # for comparisons of many options on the development split
SEARCH = (  # tried beside it on the development split, to choose by
    _budget("50 steps", steps=50),
    SHORT,
    replace(SHORT, name="cfg 2", cfg=2.0),
    replace(SHORT, name="cfg 7", cfg=7.0),
    replace(SHORT, name="strength 0.7", strength=0.7),
    replace(SHORT, name="rate 3e-4", learning_rate=3e-4),
    _budget("50 steps, rate 3e-3", steps=50, learning_rate=3e-3),
)
BEST = {  # by `report.chosen` from the development split's rows
    OURS: replace(EQUAL, name="best"),
    REFERENCE: replace(SHORT, name="best"),
}
QUICK = replace(EQUAL, steps=2, ddim_steps=2)
