"""What writers that were killed left in the pack's folders."""

from __future__ import annotations

from pathlib import Path

import folder_paths
import psutil

from ..ei2 import temporary
from ..ei2.temporary import Litter
from . import inversion_cache, tune_folder


def find_litter() -> Litter:
    """How much there is."""
    sizes = [size for folder in _folders() for size in temporary.find_litter(folder, _runs).values()]
    return Litter(len(sizes), sum(sizes))


def sweep() -> Litter:
    """Deletes it; returns what is gone."""
    return sum((temporary.sweep(folder, _runs) for folder in _folders()), Litter())


def _folders() -> list[Path]:
    return [inversion_cache.folder(), *map(Path, folder_paths.get_folder_paths(tune_folder.KEY))]


def _runs(process: int, since: int) -> bool:
    try:
        return psutil.Process(process).create_time() <= since + 1  # later: another one got the number
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:  # it is there, but is not ours to look at
        return True
