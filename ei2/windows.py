"""Clips that are too long to process at once: windows to learn from, and the coarse tokens that all windows share.

Within a window everything works as in a short clip, except FFAM's coarse tokens. They come from frames spread over the
whole clip, the same for every window, which keeps the appearance consistent (our choice; the paper edits short clips).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from random import Random

import torch


def draw_window(frames: int, length: int, draws: Random) -> slice:
    """`length` consecutive frames of a clip, drawn uniformly; the whole clip if it is not longer."""
    start = draws.randrange(max(frames - length, 0) + 1)
    return slice(start, min(start + length, frames))


def static_windows(frames: int, length: int, overlap: int) -> list[list[int]]:
    """The frames of each window: `length` consecutive frames, of which each window shares `overlap` with the next. The
    last window ends with the clip, so it may share more. The windows are the same at every noise level."""
    if frames <= length:
        return [list(range(frames))]
    starts = [*range(0, frames - length, length - overlap), frames - length]
    return [list(range(start, start + length)) for start in starts]


def pyramid_weights(length: int) -> list[float]:
    """The weight of each frame where windows overlap: its distance from the window's nearer end."""
    return [float(min(i + 1, length - i)) for i in range(length)]


def spread_frames(frames: int, count: int) -> list[int]:
    """The numbers of `count` evenly spaced frames, including the first and the last; for a count of
    1, the middle one. At most all frames."""
    count = min(count, frames)
    if count == 1:
        return [frames // 2]
    return [round(i * (frames - 1) / (count - 1)) for i in range(count)]


class CoarseTokens:
    """FFAM's coarse keys and values of the clip's `frames`, by place. A place is one attention layer for one prompt.

    They belong to one noise level. They are recorded while the UNet runs on those frames (`recording`); then every
    window at that noise level reads them.
    """

    def __init__(self, frames: Sequence[int]):
        self.frames = list(frames)
        self.recording = True
        self._kept: dict[Hashable, tuple[torch.Tensor, torch.Tensor]] = {}

    def keep(self, places: Sequence[Hashable], k: torch.Tensor, v: torch.Tensor) -> None:
        """Stores keys and values `(b a) m c` of a frames each, for b places."""
        for place, *tokens in zip(places, k.chunk(len(places)), v.chunk(len(places))):
            self._kept[place] = tuple(t.clone() for t in tokens)  # a view would keep all places' tokens

    def of(self, places: Sequence[Hashable]) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Keys and values of b places, `b a m c` each; None unless all were stored."""
        if any(place not in self._kept for place in places):
            return None
        k, v = zip(*(self._kept[place] for place in places))
        return torch.stack(k), torch.stack(v)

    def own(self, window: Sequence[int]) -> list[int | None]:
        """For each frame of a window, its index in `frames`, or None."""
        return [self.frames.index(frame) if frame in self.frames else None for frame in window]

    def clear(self) -> None:
        """Frees the tokens, which are not valid at another noise level."""
        self._kept.clear()

    @property
    def bytes(self) -> int:
        return sum(t.numel() * t.element_size() for tokens in self._kept.values() for t in tokens)
