"""What EditBench compares: the methods and their budgets."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from ei2.optimizers import ADAMW, FACTORED

REFERENCE = "Tune-A-Video"
OURS = "EI2"
CONTROL, BLEND = f"{OURS} + control", f"{OURS} + control + blend"
KEY_FRAME, DRAWN = f"{OURS} + key frame", f"{OURS} + drawn frame"
PER_FRAME = "Per-frame"

CROSS_REPLACE, SELF_REPLACE, THRESHOLD = 0.4, 0.5, 0.5  # of EI2 with control, and of its LocalBlend


@dataclass(frozen=True)
class BlendSettings:
    """LocalBlend on the words of `clips.blend_words`, see `ei2.prompt_control.Blend`."""

    threshold: float
    start: float = 0.2


@dataclass(frozen=True)
class ControlSettings:
    """Attention control, see `ei2.prompt_control.Control`. `cross_replace`: the share of the steps for prompts of equal
    length; `cross_refine`: for prompts of unequal length."""

    cross_replace: float
    cross_refine: float
    self_replace: float
    unconditional: str = "decoupled"
    blend: BlendSettings | None = None


@dataclass(frozen=True)
class Method:
    """One way of editing.

    `inflation`: options that differ from the EI2 preset; `preset`: its own preset instead; `tuned`: whether it
    learns the clip; `inversion`: options of the model for inversion, if it is a different one; `inverted_with`:
    the prompt of the inversion, "source" or "empty"; `null_text`: inner steps of null-text optimisation, 0 for
    none; `control`: attention control, if any; `key_frame`: what EI2 Carry Key Frame carries, a frame of the edit
    ("own") or the correct one ("drawn"), where only the object changes; `denoise`: of that node.
    """

    name: str
    inflation: tuple[tuple[str, Any], ...] = ()
    preset: str = OURS
    tuned: bool = True
    inversion: tuple[tuple[str, Any], ...] = ()
    inverted_with: str = "source"
    null_text: int = 0
    control: ControlSettings | None = None
    key_frame: str | None = None
    denoise: float | None = None

    @property
    def guidance(self) -> dict[str, Any]:
        """What it adds to inflation, tuning and DDIM inversion with the source prompt."""
        parts = {
            "inverted_with": self.inverted_with if self.inverted_with != "source" else None,
            "null_text": self.null_text or None,
            "control": self.control and asdict(self.control),
            "key_frame": self.key_frame,
            "denoise": self.denoise,
        }
        return {name: part for name, part in parts.items() if part}


def _changed(part: str, **inflation) -> Method:
    return Method(f"{OURS}, {part}", tuple(inflation.items()))


def _controlled(name: str, cross: float, itself: float, threshold: float | None = None) -> Method:
    blend = None if threshold is None else BlendSettings(threshold)
    return Method(name, control=ControlSettings(cross, cross, itself, blend=blend))


# inverts with plain self-attention in the same UNet, whose Group Norm stays joint over frames
_VID2VID_ZERO = Method(
    "Vid2Vid-zero attention",
    preset="Vid2Vid-zero",
    tuned=False,
    inversion=(("spatial", "none"), ("temporal", "none"), ("group_norm", "video")),
)
COMPARED = (
    Method(PER_FRAME, preset=PER_FRAME),
    Method(REFERENCE, preset=REFERENCE),
    Method("Video-P2P attention", preset="Video-P2P"),
    Method(
        "Video-P2P", preset="Video-P2P", null_text=10, control=ControlSettings(0.2, 0.2, 0.5, blend=BlendSettings(0.3))
    ),
    _VID2VID_ZERO,
    replace(
        _VID2VID_ZERO,
        name="Vid2Vid-zero",
        inverted_with="empty",
        null_text=1,
        control=ControlSettings(0.8, 0.4, 0.0, unconditional="late"),
    ),
    Method(OURS),
    _controlled(CONTROL, CROSS_REPLACE, SELF_REPLACE),
    _controlled(BLEND, CROSS_REPLACE, SELF_REPLACE, THRESHOLD),
    Method(KEY_FRAME, key_frame="own", denoise=0.3),
    Method(DRAWN, key_frame="drawn", denoise=0.3),
)
ABLATIONS = (  # EI2 with one part of it changed
    _changed("joint GroupNorm", group_norm="video"),
    _changed("SCA for FFAM", spatial="sca"),
    _changed("Layer Norm for IC", centering="layer_norm"),
    _changed("no temporal attention", temporal="none"),
    _changed("no normalization", normalization="off"),
    _changed("after spatial attention", position="after_spatial"),
    _changed("coarse factor 4", coarse_factor=4),
    _changed("stride pooling", coarse_pool="stride"),
    _changed("dense for FFAM", spatial="dense"),
    _changed("first frame for FFAM", spatial="first_frame"),
)
CHOICES = (  # other values for choices the paper leaves open, tried on the development split only
    _changed("IC over frames and space", centering="frames_space"),
    _changed("IC over channels", centering="channels"),
    _changed("strict normalization", normalization="strict"),
    _changed("normalized v and o", normalization_scope="vo"),
    *(Method(f"{KEY_FRAME}, denoise {d:g}", key_frame="own", denoise=d) for d in (0.1, 0.2)),
    *(Method(f"{DRAWN}, denoise {d:g}", key_frame="drawn", denoise=d) for d in (0.1, 0.2)),
)
CONTROL_CHOICES = (  # values of EI2's control, also tried on the development split only
    *(_controlled(f"{OURS}, control {c:g} / 0.5", c, 0.5) for c in (0.0, 0.2, 0.4, 0.6, 0.8)),
    _controlled(f"{OURS}, control 0.4 / 0", 0.4, 0.0),
    *(_controlled(f"{OURS}, control 0.4 / 0.5, blend {t:g}", 0.4, 0.5, t) for t in (0.3, 0.5, 0.7)),
)
METHODS = {method.name: method for method in (*COMPARED, *CHOICES, *CONTROL_CHOICES, *ABLATIONS)}


@dataclass(frozen=True)
class Budget:
    """What a method may spend, and on what. `strength`: of the tune, see `TuneResult.scaled`; `guidance_end`: the share
    of the steps, from the first, with guidance; `optimizer`: of `ei2.optimizers`."""

    name: str
    steps: int = 25
    learning_rate: float = 3e-3
    cfg: float = 3.0
    strength: float = 1.0
    ddim_steps: int = 12
    guidance_end: float = 1.0
    optimizer: str = ADAMW

    def settings(self, method: Method) -> dict[str, Any]:
        """The settings that a row records; a row with other settings is out of date."""
        spent = {key: value for key, value in asdict(self).items() if key != "name"}
        if not method.tuned:
            del spent["steps"], spent["learning_rate"], spent["strength"], spent["optimizer"]
        for later, usual in {"guidance_end": 1.0, "optimizer": ADAMW}.items():  # rows may be older than these
            if spent.get(later) == usual:
                del spent[later]
        return {**spent, "inflation": dict(method.inflation), **method.guidance}


def learning(method: Method, budget: Budget) -> tuple:
    """What tuning depends on, apart from its number of steps: fewer steps are a snapshot of a longer run. Cases with
    the same value share a tuning; without tuning they share only the model."""
    return method.preset, method.inflation, (budget.learning_rate, budget.optimizer) if method.tuned else None


EQUAL = Budget("equal", cfg=4.0, guidance_end=0.5)  # as in the bundled workflows
CFG_3 = Budget("cfg 3", guidance_end=0.5)
GUIDED = Budget("cfg 3, guidance in all steps")
LONG = replace(CFG_3, name="cfg 3, 100 steps", steps=100)
LOW_RATE = replace(CFG_3, name="cfg 3, rate 1e-3", learning_rate=1e-3)
LOW_RATE_GUIDED = replace(GUIDED, name="cfg 3, rate 1e-3, guidance in all steps", learning_rate=1e-3)
SEARCH = (  # tried in addition to `EQUAL` and `GUIDED` on the development split, to choose from
    CFG_3,
    replace(CFG_3, name="cfg 3, guidance in two thirds of the steps", guidance_end=0.67),
    replace(CFG_3, name="cfg 3, 50 steps", steps=50),
    LONG,
    LOW_RATE,
    LOW_RATE_GUIDED,
    replace(LONG, name="cfg 3, rate 1e-3, 100 steps", learning_rate=1e-3),
    replace(CFG_3, name="cfg 3, 24 DDIM steps", ddim_steps=24),
    replace(CFG_3, name="cfg 3, factored AdamW", optimizer=FACTORED),
    replace(EQUAL, name="cfg 5", cfg=5.0),
)
SLOW = (  # the settings of earlier versions
    Budget("200 steps, rate 1e-3, 50 DDIM steps", steps=200, learning_rate=1e-3, ddim_steps=50),
)
QUICK = replace(EQUAL, steps=2, ddim_steps=2)
