"""One edited frame, the key frame, carried through the clip, so that what was edited has the same form in all frames.

Every frame of an edit decides anew what the new object looks like, and neither FFAM nor STAM, tuned on one clip, makes
the frames agree (our finding). The source says how the object moves. So one frame's edit is moved to where the source's
object is in every frame and pasted over that frame's own edit. Noised with the inversion's own noise and sampled again
for the last part of the steps, it loses its seams (SDEdit, Meng et al., ICLR 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from .object_motion import ALIKE, LOST
from .warp import blurred, grown, moved, seen_at

SMOOTH, GROWN, SOFT = 0.012, 0.03, 0.015  # of the picture's shorter side: of the difference, its region, and its edge
UNCHANGED, SURE = 0.03, 0.2  # differences of colours, in 0..1, that may be noise, and that are an edit
EDGE = (0.6, 1.4)  # of the threshold: differences that count as unchanged, and as changed
SPECK = 0.05  # of the key frame's region: a frame with a smaller one hardly shows the object, or was not edited
SHOWN = 0.25  # of the largest region: frames with a smaller one hardly show the object
FOLLOWED = 0.4  # share found again from which a frame takes the key frame whole; below `LOST`, not at all


@dataclass(frozen=True)
class KeyFrame:
    """`number`: of the frame it was made from; `picture`: `3 h w` in 0..1; `region`: `1 h w` in 0..1, where it differs
    from the source."""

    number: int
    picture: torch.Tensor
    region: torch.Tensor


@dataclass(frozen=True)
class Carried:
    """`frames` `f 3 h w`: the edit with a key frame pasted into it; `followed` `f`: the share of the key frame's region
    in which the source was found again, 0..1; `changed` `f 1 h w`: where `frames` is no longer the edit, 0..1."""

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
    not above `SURE`. All zero if nothing differs.
    """
    difference = _difference(edit, source)
    threshold = difference.max() / 2
    for _ in range(20):
        above = difference > threshold
        if threshold < UNCHANGED:
            return torch.zeros_like(difference)
        if above.all():
            break
        threshold = (difference[above].mean() + difference[~above].mean()) / 2
    threshold = threshold.clamp(max=SURE)
    low, high = (share * threshold for share in EDGE)
    return ((difference - low) / (high - low)).clamp(0, 1)


def gain(prompted: torch.Tensor, plain: torch.Tensor, clean: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
    """By how much a prompt explains each frame's object, `f`: the share of the denoising error in its region that the
    prompt takes away from that of another prompt (a diffusion classifier, Li et al., ICCV 2023). Minus infinity without
    a region.

    `prompted`, `plain`: `clean` `f c h w` with the same noise added, denoised with the prompt and with the other one;
    `regions`: `f 1 h w`.
    """
    with_it, without = (((x - clean).square() * regions).sum(dim=(1, 2, 3)) for x in (prompted, plain))
    empty = regions.sum(dim=(1, 2, 3)) == 0  # the object is not there
    return (1 - with_it / without.clamp(min=1e-12)).masked_fill(empty, -torch.inf)


def shows_object(regions: torch.Tensor) -> torch.Tensor:
    """In which frames the object is not, or hardly, cut off, as booleans `f`. `regions`: the object's, `f 1 h w`."""
    sizes = regions.sum(dim=(1, 2, 3))
    return sizes >= SHOWN * sizes.max()


def frame_of(source: torch.Tensor, picture: torch.Tensor, regions: torch.Tensor) -> int:
    """The frame of the source `f 3 h w` from which a picture `3 h w` was made: of those that show the object, which is
    in `regions` `f 1 h w`, it equals that one in most places."""
    unlike = torch.stack([(one - picture).abs().amax(dim=0).clamp(max=ALIKE).mean() for one in source])
    return int(unlike.masked_fill(~shows_object(regions), torch.inf).argmin())


def carried(
    source: torch.Tensor,
    edit: torch.Tensor,
    regions: torch.Tensor,
    keys: Sequence[KeyFrame],
    motion: torch.Tensor,
    restore: bool = True,
    on_frame: Callable[[], None] = lambda: None,
) -> Carried:
    """The edit, with the nearest key frame from which the object could be followed pasted into every frame.

    `source`, `edit`: `f 3 h w` in 0..1; `regions`: `f 1 h w`, where they differ; `motion`: as from `object_motion`, to
    any frame. `restore`: whether the source shows what lies behind the object; if not, what a frame's own object leaves
    beside the key frame's stays. `on_frame` is called after each frame.
    """
    size, pasted = edit.shape[2:], [_pasted(key.region.unsqueeze(0)) for key in keys]
    frames, changed, followed = edit.clone(), torch.zeros_like(regions), torch.zeros(len(edit))
    for i, frame in enumerate(source.split(1)):
        for n in sorted(range(len(keys)), key=lambda n: abs(keys[n].number - i)):
            number = keys[n].number
            places = moved(motion[number].inverse() @ motion[i], *size)
            here, region = source[number].unsqueeze(0), keys[n].region.unsqueeze(0)
            followed[i] = _followed(frame, here, region, places)
            speck = SPECK * region.sum()
            if regions[i].sum() < speck:  # the object may have gone
                changing = region * (_difference(here, frame) >= ALIKE)
                if changing.sum() > speck:
                    followed[i] = torch.minimum(followed[i], _followed(frame, here, changing, places))
            if followed[i] >= LOST:
                break
        trust = ((followed[i] - LOST) / (FOLLOWED - LOST)).clamp(0, 1)
        share = trust * seen_at(pasted[n], places, "zeros")
        below = frames[i : i + 1]
        if restore:
            # A frame's own object may reach beyond the key frame's. The source shows what lies behind it there: the key
            # frame covers all of the source's object, except where it ends at the picture's edge.
            known = seen_at(torch.ones_like(pasted[n]), places, "zeros")
            own = trust * known * _pasted(regions[i : i + 1])
            below = torch.lerp(below, frame, own)
            changed[i] = own[0]
        frames[i] = torch.lerp(below, seen_at(keys[n].picture.unsqueeze(0), places), share)[0]
        changed[i] = torch.maximum(changed[i], share[0])
        on_frame()
    return Carried(frames, followed, changed)


def _difference(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The largest difference of two pictures' `n 3 h w` colours, smoothed: `n 1 h w`."""
    return blurred((one - other).abs(), max(0.5, SMOOTH * min(one.shape[2:]))).amax(dim=1, keepdim=True)


def _pasted(regions: torch.Tensor) -> torch.Tensor:
    """Regions `n 1 h w`, grown and with soft edges."""
    side = min(regions.shape[2:])
    return blurred(grown(regions, max(1, round(GROWN * side))), max(0.5, SOFT * side))


def _followed(frame: torch.Tensor, key: torch.Tensor, region: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The share of the key frame's region in which two frames of the source `1 3 h w` are alike. `places`: where the
    pixels of `frame` are in `key`."""
    region, again = seen_at(region, places, "zeros"), seen_at(key, places)
    return (region * (_difference(again, frame) < ALIKE)).sum() / region.sum().clamp(min=1e-6)
