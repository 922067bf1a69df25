"""One edited frame, the key frame, carried through the clip, so that what was edited has the same form in all frames.

Every frame of an edit decides anew what the new object looks like, and neither FFAM nor STAM, tuned on one clip, makes
the frames agree (our finding). The source says how the object moves. So one frame's edit is moved to where the source's
object is in every frame and pasted over that frame's own edit. Noised with the inversion's own noise and sampled again
for the last part of the steps, it loses its seams (SDEdit, Meng et al., ICLR 2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .object_motion import ALIKE, LOST, moved
from .warp import blurred, seen_at

SMOOTH, GROWN, SOFT = 0.012, 0.03, 0.015  # of the picture's shorter side: of the difference, its region, and its edge
UNCHANGED, SURE = 0.03, 0.2  # differences of colours, in 0..1, that may be noise, and that are an edit
WHOLE = 0.6  # share of the clip above which an edit is one of the whole picture
EDGE = (0.6, 1.4)  # of the threshold: differences that count as unchanged, and as changed
FOLLOWED = 0.6  # share of the object's pixels found again from which a frame takes the key frame; below `LOST`, its own


@dataclass(frozen=True)
class Carried:
    """`frames` `f 3 h w`: the edit with a key frame pasted into it; `followed` `f`: the share of the source's object
    that was found again in each frame, 0..1; `changed` `f 1 h w`: where `frames` is no longer the edit, 0..1."""

    frames: torch.Tensor
    followed: torch.Tensor
    changed: torch.Tensor

    @property
    def lost(self) -> list[int]:
        """The frames that keep their own edit."""
        return (self.followed < LOST).nonzero().flatten().tolist()


def edited_region(source: torch.Tensor, edit: torch.Tensor) -> torch.Tensor:
    """Where an edit differs from its source, both `f 3 h w` in 0..1, soft in 0..1: `f 1 h w`.

    The threshold lies midway between the means of the differences above and below it (Ridler and Calvard, 1978), but
    not above `SURE`. Raises `ValueError` if nothing differs.
    """
    difference = blurred((edit - source).abs(), max(0.5, SMOOTH * min(source.shape[2:]))).amax(dim=1, keepdim=True)
    threshold = difference.max() / 2
    for _ in range(20):
        above = difference > threshold
        if threshold < UNCHANGED:
            raise ValueError("The edit hardly differs from its clip, so there is nothing to carry: raise cfg.")
        if above.all():
            break
        threshold = (difference[above].mean() + difference[~above].mean()) / 2
    threshold = threshold.clamp(max=SURE)
    low, high = (share * threshold for share in EDGE)
    return ((difference - low) / (high - low)).clamp(0, 1)


def check_one_object(regions: torch.Tensor) -> None:
    """Raises `ValueError` if the edited regions `f 1 h w` cover nearly all of the clip, since that moves as no single
    object does, and if they are empty."""
    if regions.mean() > WHOLE:
        raise ValueError(
            "The edit changes nearly the whole picture, and only one object can be carried: connect a mask of it."
        )
    if not regions.any():
        raise ValueError("The edit changes nothing inside the mask: is it inverted?")


def typical_frame(edit: torch.Tensor, regions: torch.Tensor, motion: torch.Tensor) -> int:
    """The frame whose edit agrees best with those of the others, when all are moved to one place. `edit`: `f 3 h w`;
    `regions`: `f 1 h w`; `motion`: as from `object_motion`, to any frame."""
    places = torch.cat([moved(matrix.inverse(), *edit.shape[2:]) for matrix in motion])
    posed, weight = seen_at(edit, places), seen_at(regions, places, "zeros").mean(dim=0)
    differences = torch.stack([((posed - one).abs() * weight).mean(dim=(1, 2, 3)) for one in posed])
    return int(differences.median(dim=1).values.argmin())


def carried(
    source: torch.Tensor,
    edit: torch.Tensor,
    regions: torch.Tensor,
    picture: torch.Tensor,
    region: torch.Tensor,
    motion: torch.Tensor,
    key: int,
) -> Carried:
    """The edit with a key frame pasted into every frame where the object could be followed.

    `source`, `edit`: `f 3 h w` in 0..1; `regions`: `f 1 h w`, where they differ; `picture`: the key frame, `3 h w`;
    `region`: `1 h w`, where it differs from the source; `motion`: as from `object_motion`, to any frame; `key`: the
    frame that the picture is of.
    """
    places = torch.cat([moved(matrix, *edit.shape[2:]) for matrix in motion[key].inverse() @ motion])
    everywhere = region.expand(len(edit), *region.shape)
    followed = _followed(source, seen_at(source[key].expand_as(source), places), seen_at(everywhere, places, "zeros"))
    trust = ((followed - LOST) / (FOLLOWED - LOST)).clamp(0, 1).view(-1, 1, 1, 1)
    share = trust * seen_at(_pasted(everywhere[:1]).expand_as(everywhere), places, "zeros")
    # A frame's own object may reach beyond the key frame's. The source shows what lies behind it there: the key frame
    # covers all of the source's object.
    own = trust * _pasted(regions)
    frames = torch.lerp(torch.lerp(edit, source, own), seen_at(picture.expand_as(edit), places), share)
    return Carried(frames, followed, torch.maximum(share, own))


def nearest(results: dict[int, Carried]) -> Carried:
    """Of several key frames' results, by the key frames' numbers: every frame takes the nearest key frame from which
    the object was followed to it."""
    chosen = []
    for i in range(len(next(iter(results.values())).frames)):
        by_distance = sorted(results, key=lambda key: abs(key - i))
        chosen.append(next((key for key in by_distance if results[key].followed[i] >= LOST), by_distance[0]))
    pick = lambda name: torch.stack([getattr(results[key], name)[i] for i, key in enumerate(chosen)])
    return Carried(pick("frames"), pick("followed"), pick("changed"))


def _pasted(regions: torch.Tensor) -> torch.Tensor:
    """Regions `n 1 h w`, grown and with soft edges."""
    side = min(regions.shape[2:])
    grow = max(1, round(GROWN * side))
    return blurred(F.max_pool2d(regions, 2 * grow + 1, 1, grow), max(0.5, SOFT * side))


def _followed(source: torch.Tensor, again: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
    """The share of the regions `f 1 h w` in which the source `f 3 h w` and one of its frames, moved, are alike: `f`."""
    alike = blurred((again - source).abs(), max(0.5, SMOOTH * min(source.shape[2:]))).amax(dim=1, keepdim=True) < ALIKE
    return (regions * alike).sum(dim=(1, 2, 3)) / regions.sum(dim=(1, 2, 3)).clamp(min=1e-6)


def frame_of(source: torch.Tensor, picture: torch.Tensor) -> int:
    """The frame of the source `f 3 h w` from which a picture `3 h w` was made: it equals that one in most places."""
    return int((source - picture).abs().clamp(max=ALIKE).mean(dim=(1, 2, 3)).argmin())
