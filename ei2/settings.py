"""How a UNet is inflated: the options, the named presets, and which combinations make sense."""

from __future__ import annotations

from dataclasses import asdict, dataclass

SPATIAL = ("ffam", "sca", "first_frame", "dense", "none")
COARSE_POOL = ("average", "stride")
TEMPORAL = ("stam", "attention", "none")
CENTERING = ("frames", "frames_space", "channels")
NORMALIZATION = ("bounded", "strict", "off")
NORMALIZATION_SCOPE = ("qkvo", "vo")
POSITION = ("after_feed_forward", "after_spatial")
GROUP_NORM = ("video", "frame")

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


@dataclass(frozen=True)
class InflationSettings:
    """What an image UNet becomes when it is inflated to a video UNet. The defaults are EI².

    Raises `ValueError` for a value outside its choices or a coarse factor below 1.
    """

    spatial: str = "ffam"  # what a frame's self-attention looks at
    coarse_factor: int = 2  # FFAM: other frames are pooled by this factor in both directions
    coarse_pool: str = "average"
    temporal: str = "stam"  # the attention over frames at each position
    centering: str = "frames"  # STAM: the axis of Instance Centering
    normalization: str = "bounded"  # STAM: how the spectral norm of the projections is restricted
    normalization_scope: str = "qkvo"
    position: str = "after_feed_forward"  # where in each transformer block the temporal module sits
    group_norm: str = "video"  # statistics of the ResBlocks' GroupNorms over the whole video or per frame

    def __post_init__(self):
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}: choose one of {', '.join(choices)}.")
        if self.coarse_factor < 1:
            raise ValueError(f"coarse_factor is {self.coarse_factor}: it must be 1 or more.")

    def to_dict(self) -> dict[str, str | int]:
        return asdict(self)


PRESETS = {
    "EI2": InflationSettings(),
    "Tune-A-Video": InflationSettings(spatial="sca", temporal="attention"),
    "Per-frame": InflationSettings(spatial="none", temporal="none", group_norm="frame"),
}
