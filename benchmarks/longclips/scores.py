"""The measures of long clips that EditBench lacks: seams between windows, drift of the colours, and live memory.

Clips are `f 3 h w` in 0..1; edits are compared with the rendered correct result.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def borders(windows: Sequence[Sequence[int]], frames: int) -> torch.Tensor:
    """Whether a window begins or ends between each frame and the next: `frames - 1` truth values."""
    covering = [{number for number, window in enumerate(windows) if frame in window} for frame in range(frames)]
    return torch.tensor([before != after for before, after in zip(covering, covering[1:])])


def seam_ratio(edited: torch.Tensor, truth: torch.Tensor, at_border: torch.Tensor) -> float:
    """Flicker (see `ei2.measures.flicker`) at the windows' borders, as a multiple of flicker inside windows.
    `at_border`: see `borders`."""
    steps = (edited.double() - truth.double()).diff(dim=0).abs().mean(dim=(1, 2, 3))
    return float(steps[at_border].mean() / steps[~at_border].mean())


def color_errors(edited: torch.Tensor, truth: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The error of the mean colour in each frame, `f 3`. `weights`: where to look, for example at the object,
    `f 1 h w`."""
    errors = (edited.double() - truth.double()) * weights
    return errors.sum(dim=(2, 3)) / weights.double().sum(dim=(2, 3)).clamp(min=1e-6)


def drift(errors: torch.Tensor, first: Sequence[int], last: Sequence[int]) -> float:
    """How far a colour moves from the first window's frames to the last window's: the distance between the mean
    `color_errors`, 0..√3."""
    return float((errors[list(first)].mean(dim=0) - errors[list(last)].mean(dim=0)).norm())


def wander(errors: torch.Tensor) -> float:
    """A colour's distance from its own mean over the clip: root mean square over frames."""
    return float((errors - errors.mean(dim=0)).square().sum(dim=1).mean().sqrt())


class LiveTensors(TorchDispatchMode):
    """A context that counts the bytes of tensors made in it: `now` those still held, `peak` their maximum. The count is
    the same on every machine, whatever its allocator keeps; it misses what kernels allocate for themselves."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        storages = lambda tree: [t.untyped_storage() for t in tree_leaves(tree) if isinstance(t, torch.Tensor)]
        inputs = set(map(id, storages((args, kwargs))))
        result = function(*args, **(kwargs or {}))
        for storage in storages(result):
            if id(storage) not in inputs and id(storage) not in self._known:
                self._add(storage)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()

        def gone(_):
            del self._known[key]
            self.now -= size

        self._known[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)
