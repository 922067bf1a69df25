"""One edited frame, the key frame, carried through the clip, so that what was edited has the same form in all frames.

Each frame of an edit decides anew what the new object looks like, and nothing makes the frames agree (our finding; neither FFAM
nor STAM, tuned on one clip, does). The source says how the object moves. So one frame's edit is moved to where the source's
object is in each frame, pasted over that frame's own edit, and the result is noised and sampled again for the last part of the
steps, which mends the seams (SDEdit, Meng et al., ICLR 2022, with the inversion's own noise).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .object_motion import moved
from .warp import blurred, seen_at

CHANGED = (0.06, 0.18)  # of the range of values: differences that count as unchanged, and as changed
SMOOTH, GROWN, SOFT = 0.012, 0.05, 0.02  # of the picture's shorter side: of the difference, its region, and its edge


def edited_region(source: torch.Tensor, edit: torch.Tensor) -> torch.Tensor:
    """Where an edit differs from its source, both `f 3 h w` in 0..1, soft in 0..1: `f 1 h w`."""
    side = min(source.shape[2:])
    difference = blurred((edit - source).abs(), max(0.5, SMOOTH * side)).amax(dim=1, keepdim=True)
    return ((difference - CHANGED[0]) / (CHANGED[1] - CHANGED[0])).clamp(0, 1)


def pasted_region(region: torch.Tensor) -> torch.Tensor:
    """A region `n 1 h w`, grown and with a soft edge: how much of the key frame is seen there."""
    side = min(region.shape[2:])
    grow = max(1, round(GROWN * side))
    return blurred(F.max_pool2d(region, 2 * grow + 1, 1, grow), max(0.5, SOFT * side))


def typical_frame(edit: torch.Tensor, regions: torch.Tensor, motion: torch.Tensor) -> int:
    """The frame whose edit agrees best with those of the others, when all are moved to one place. `edit`: `f 3 h w`;
    `regions`: `f 1 h w`; `motion`: as from `object_motion`, to any frame."""
    places = torch.cat([moved(matrix.inverse(), *edit.shape[2:]) for matrix in motion])
    posed, weight = seen_at(edit, places), seen_at(regions, places, "zeros").mean(dim=0)
    differences = torch.stack([((posed - one).abs() * weight).mean(dim=(1, 2, 3)) for one in posed])
    return int(differences.median(dim=1).values.argmin())


def carried(
    edit: torch.Tensor, picture: torch.Tensor, region: torch.Tensor, motion: torch.Tensor, key: int
) -> torch.Tensor:
    """The edit `f 3 h w` with a key frame pasted into every frame. `picture`: the key frame's own, `3 h w`; `region`: how
    much of it is seen, `1 h w`; `motion`: as from `object_motion`, to any frame; `key`: the frame that it is of."""
    to_key = motion[key].inverse() @ motion
    places = torch.cat([moved(matrix, *edit.shape[2:]) for matrix in to_key])
    seen = seen_at(picture.expand_as(edit), places)
    share = seen_at(region.expand(len(edit), *region.shape), places, "zeros")
    return torch.lerp(edit, seen, share)
