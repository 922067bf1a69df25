"""How a UNet is inflated: the options, the presets, and the valid combinations."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from .user_text import check_choice, short

SPATIAL = ("ffam", "sca", "first_frame", "dense", "dense_sca", "none")
COARSE_POOL = ("average", "stride")
TEMPORAL = ("stam", "attention", "none")
CENTERING = ("frames", "frames_space", "channels", "layer_norm")
NORMALIZATION = ("bounded", "strict", "off")
NORMALIZATION_SCOPE = ("qkvo", "vo")
POSITION = ("after_feed_forward", "after_spatial")
GROUP_NORM = ("frame", "video")
COARSEST = 8  # factor of FFAM's coarse tokens

CHOICES = {
    "spatial": SPATIAL,
    "coarse_pool": COARSE_POOL,
    "temporal": TEMPORAL,
    "centering": CENTERING,
    "normalization": NORMALIZATION,
    "normalization_scope": NORMALIZATION_SCOPE,
    "position": POSITION,
    "group_norm": GROUP_NORM,
}

# Options that need another option to have an effect. Default values always pass, so a user can change
# `spatial` or `temporal` and leave the rest.
NEEDS = (
    ("coarse_factor", "spatial", ("ffam",)),
    ("coarse_pool", "spatial", ("ffam",)),
    ("centering", "temporal", ("stam",)),
    ("normalization", "temporal", ("stam",)),
    ("normalization_scope", "temporal", ("stam",)),
    ("normalization_scope", "normalization", ("bounded", "strict")),
    ("position", "temporal", ("stam", "attention")),
)


@dataclass(frozen=True)
class InflationSettings:
    """What an image UNet becomes when it is inflated to a video UNet. The defaults are EI².

    Raises `ValueError` for a value outside its choices, a coarse factor below 1, and a choice
    that has no effect because of another one.
    """

    spatial: str = "ffam"  # what a frame's self-attention sees
    coarse_factor: int = 2  # FFAM: other frames are pooled by this factor in both directions
    coarse_pool: str = "average"
    temporal: str = "stam"  # the attention over frames at each position
    centering: str = "frames"  # STAM: the axis of Instance Centering
    normalization: str = "bounded"  # STAM: how the spectral norm of the projections is limited
    normalization_scope: str = "qkvo"
    position: str = "after_feed_forward"  # where in each transformer block the temporal module sits
    group_norm: str = "frame"  # statistics of the ResBlocks' GroupNorms: per frame, or over the whole video

    def __post_init__(self):
        for name, choices in CHOICES.items():
            check_choice(name, getattr(self, name), choices)
        if not 1 <= self.coarse_factor <= COARSEST:
            raise ValueError(f"coarse_factor is {short(self.coarse_factor)}: it must be from 1 to {COARSEST}.")
        for name, other, values in NEEDS:
            value, default = getattr(self, name), getattr(type(self), name)
            if value != default and getattr(self, other) not in values:
                needed = " or ".join(map(str, values))
                raise ValueError(
                    f"{name} {value} has no effect unless {other} is {needed}: set {other} to {needed}, or {name} back "
                    f"to {default}."
                )
        if self.coarse_factor == 1 and self.coarse_pool == "stride":
            raise ValueError(
                "coarse_pool stride has no effect with coarse_factor 1, which pools nothing: set coarse_factor to 2 or "
                "more, or coarse_pool back to average."
            )

    def to_dict(self) -> dict[str, str | int]:
        return asdict(self)


# What the public code of the compared methods does to the UNet. All inflate the ResBlocks, so Group Norm is joint over
# frames. Their guidance (null-text optimisation, attention control) belongs to inversion and sampling.
PRESETS = {
    "EI2": InflationSettings(),
    "Tune-A-Video": InflationSettings(spatial="sca", temporal="attention", group_norm="video"),
    "Video-P2P": InflationSettings(spatial="first_frame", temporal="attention", group_norm="video"),
    "Vid2Vid-zero": InflationSettings(spatial="dense_sca", temporal="none", group_norm="video"),
    "Per-frame": InflationSettings(spatial="none", temporal="none"),
}
