"""The peak memory of a stretch of work: of the GPU where there is one, otherwise of this process."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

CLEAR = Path("/proc/self/clear_refs")  # Linux: writing 5 starts the peak anew


def start_peak() -> None:
    """Starts a new peak."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif CLEAR.exists():
        CLEAR.write_text("5")


def peak_bytes() -> int:
    """The peak since `start_peak`, in bytes; since the start of the process where the system cannot tell otherwise."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if CLEAR.exists():
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
