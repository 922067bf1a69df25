"""An edit with one form of its object: finds the object and the key frame, and carries it through the clip.

`key_frame.py` moves and pastes; this file decides what is moved.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from .key_frame import Carried, KeyFrame, carried, edited_region, frame_of
from .object_motion import object_motion

WHOLE = 0.6  # share of the picture above which an edit is one of the whole picture
INVERTED = 0.25  # how dense an edit is inside its mask, relative to outside, if the mask is inverted


class Unsuitable(ValueError):
    """The edit has no single object that could be carried."""


def carried_edit(
    source: torch.Tensor,
    edit: torch.Tensor,
    allowed: torch.Tensor | None,
    drawn: torch.Tensor | None,
    index: int,
    choose: Callable[[torch.Tensor], int],
    on_frame: Callable[[], None] = lambda: None,
) -> tuple[list[int], Carried]:
    """The key frames' numbers, ascending, and the edit with them pasted.

    `source`, `edit`: `f 3 h w` in 0..1; `allowed`: `f 1 h w`, where the object is, None for everywhere; `drawn`: the
    user's key frames `n 3 h w`, None to carry a frame of the edit; `index`: the number of the key frame, -1 to find it;
    `choose(regions)`: the number of the frame of the edit to carry, if it has to be found. `on_frame` is called
    2 f - 1 times. Raises `Unsuitable`, and `ValueError` for key frames that do not fit.
    """
    regions = edited_region(source, edit)
    if allowed is not None:
        if _inverted(regions, allowed):
            raise Unsuitable("The edit changes little or nothing inside the mask: is it inverted?")
        regions = regions * allowed
    if not regions.any():
        raise Unsuitable(
            "The edit hardly differs from its clip, so there is nothing to carry: raise cfg of EI2 Edit Sample."
        )
    if regions.mean() > WHOLE:
        advice = _better_mask(allowed)
        raise Unsuitable(f"The edit changes nearly the whole picture, and only one object can be carried: {advice}.")
    numbers = [index] if index >= 0 else [] if drawn is None else [frame_of(source, one, regions) for one in drawn]
    if len(set(numbers)) < len(numbers):
        raise ValueError(
            f"Two pictures of key_frame seem to be made from the same frame (frames {listed(numbers)}): give one per "
            "frame."
        )
    numbers = numbers or [choose(regions)]
    if drawn is None:
        keys = [_of_edit(n, edit, regions, allowed is not None) for n in numbers]
    else:
        keys = [_drawn(n, picture, source, allowed) for n, picture in zip(numbers, drawn)]
    motion = object_motion(source, regions, numbers[0], on_frame)
    return sorted(numbers), carried(source, edit, regions, keys, motion, restore=allowed is None, on_frame=on_frame)


def listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def _better_mask(allowed: torch.Tensor | None) -> str:
    """The advice for a region that is too large."""
    return "connect a mask of it" if allowed is None else "draw the mask around it alone"


def _inverted(region: torch.Tensor, allowed: torch.Tensor) -> bool:
    """Whether an edit's region, `f 1 h w`, is empty inside the mask, or much less dense there than outside."""
    inside, outside = ((region * part).sum() / part.sum().clamp(min=1e-6) for part in (allowed, 1 - allowed))
    return bool(inside <= INVERTED * outside)


def _of_edit(number: int, edit: torch.Tensor, regions: torch.Tensor, masked: bool) -> KeyFrame:
    """A frame of the edit. Raises `ValueError` if the object is not in it."""
    if not regions[number].any():
        raise ValueError(
            f"Frame {number} of the edit equals the clip{' inside the mask' * masked}, so it has no object to carry: "
            "set key_frame_index to a frame that shows the new object, or to -1."
        )
    return KeyFrame(number, edit[number], regions[number])


def _drawn(number: int, picture: torch.Tensor, source: torch.Tensor, allowed: torch.Tensor | None) -> KeyFrame:
    """The user's key frame `3 h w`. Raises `ValueError` if it shows no other object than the source."""
    region = edited_region(source[number : number + 1], picture.unsqueeze(0))[0]
    if allowed is not None:
        region = region * allowed[number]
    if not region.any():
        raise ValueError(
            f"key_frame hardly differs from frame {number} of the clip{'' if allowed is None else ' inside the mask'}: "
            "connect the frame that you edited, or set key_frame_index."
        )
    if region.mean() > WHOLE:
        raise ValueError(
            f"key_frame differs nearly everywhere from frame {number} of the clip: edit only the object, or "
            f"{_better_mask(allowed)}."
        )
    return KeyFrame(number, picture, region)
