"""Collects the decoded frames of a span into one clip, one for each tick of an even rate."""

from __future__ import annotations

from collections.abc import Callable

import av
import numpy as np
import torch

from .picture import Pictures, is_hdr
from .timing import Even

BYTES_PER_PIXEL = 3 * (4 + 1)  # float32 result, and the 8-bit frames it is made from
ALPHA_BYTES_PER_PIXEL = 4 + 1


class Span:
    """Every `stride`-th tick of `even`, at most `most` of them (0 = all).

    make: size of the first frame -> `Pictures`. room: bytes the result may take, or None;
    sound_bytes: bytes of its sound per frame.
    """

    def __init__(
        self,
        even: Even,
        stride: int,
        most: int,
        make: Callable[[av.VideoFrame], Pictures],
        room: float | None,
        sound_bytes: float = 0.0,
    ):
        self.even, self.stride, self.room, self.sound_bytes = even, stride, room, sound_bytes
        ticks = max(0, -(-even.end // stride))
        self.planned = min(most, ticks) if most else ticks
        self._make, self.pictures = make, None
        self.hdr = False
        self._colours: list[np.ndarray] = []
        self._alphas: list[np.ndarray | None] = []
        self._latest: av.VideoFrame | None = None
        self._made: tuple | None = None
        self.lost = 0

    @property
    def count(self) -> int:
        return len(self._colours)

    @property
    def full(self) -> bool:
        return self.count >= self.planned

    @property
    def last(self) -> int:
        """The number of the last frame that is needed."""
        end = (self.planned - 1) * self.stride
        return max((number for number, slot in enumerate(self.even.slots) if slot <= end), default=-1)

    def add(self, number: int, frame: av.VideoFrame) -> None:
        """Adds the frame with this number. Frames come in order, and some may be missing. Raises ValueError
        if the clip does not fit into memory."""
        slots = self.even.slots
        slot = slots[number]
        self._repeat_until(slot, lost=True)
        self._latest, self._made = frame, None
        self.hdr = self.hdr or is_hdr(frame)
        if self.pictures is None:
            self.pictures = self._make(frame)
            self.check_memory(self.planned)
        self._repeat_until(slots[number + 1] if number + 1 < len(slots) else self.even.end)

    def finish(self) -> None:
        """The file has ended: the last frame replaces the missing later ones."""
        self._repeat_until(self.even.end, lost=True)
        self._latest = self._made = None

    def _repeat_until(self, slot: int, lost: bool = False) -> None:
        while not self.full and self._latest is not None and self.count * self.stride < slot:
            if self._made is None:
                self.check_memory(self.count + 1)
                self._made = self.pictures.picture(self._latest)
            self.lost += lost
            self._colours.append(self._made[0])
            self._alphas.append(self._made[1])

    def check_memory(self, frames: int) -> None:
        if self.room is None:
            return
        width, height = self.pictures.target
        alpha = ALPHA_BYTES_PER_PIXEL if any(one is not None for one in self._alphas[:1]) else 0
        needed = frames * (width * height * (BYTES_PER_PIXEL + alpha) + self.sound_bytes)
        if needed > self.room:
            raise ValueError(
                f"{frames} frames of {width} x {height} need {needed / 2**30:.1f} GB of memory, and "
                f"{self.room / 2**30:.1f} GB is free: lower max_frames, width or height, "
                "or raise frame_stride."
            )

    @property
    def transparent(self) -> bool:
        """Whether nothing is seen of any frame. Call it before `mask`."""
        return all(one is not None and not one.any() for one in self._alphas)

    def images(self) -> torch.Tensor:
        """`f h w 3` float32 in 0..1. Frees each frame's memory as it is copied."""
        return _stack(self._colours, (*self._colours[0].shape,))

    def mask(self) -> torch.Tensor:
        """`f h w` float32 in 0..1: 1 where the video is transparent, as ComfyUI's Load Image has it."""
        width, height = self.pictures.target
        if all(one is None for one in self._alphas):
            # zeros that take no memory until they are written
            return torch.from_numpy(np.zeros((len(self._alphas), height, width), np.float32))
        opaque = np.full((height, width), 255, np.uint8)
        alphas = [opaque if one is None else one for one in self._alphas]
        return _stack(alphas, (height, width)).neg_().add_(1.0)


def _stack(frames: list[np.ndarray], shape: tuple[int, ...]) -> torch.Tensor:
    # allocated by NumPy, not torch, because NumPy raises MemoryError when memory runs out
    result = np.empty((len(frames), *shape), np.float32)
    for index in range(len(frames)):
        result[index] = frames[index]
        frames[index] = None
    result /= np.float32(255.0)
    return torch.from_numpy(result)
