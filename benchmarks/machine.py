"""Where a run computes, and the peak memory of a stretch of work: of the GPU, or of this process."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import sys
from pathlib import Path

import torch

CLEAR = Path("/proc/self/clear_refs")  # Linux: writing 5 starts the peak anew


def uses_gpu(device: str) -> bool:
    """Whether `--device` means a GPU here."""
    return device != "cpu" and torch.cuda.is_available()


def machine(device: str) -> dict[str, str]:
    """What seconds and peaks mean nothing without."""
    processor = f"{os.cpu_count()} CPU cores ({platform.machine()})"
    return {
        "machine": torch.cuda.get_device_name() if uses_gpu(device) else processor,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def start_peak(on_gpu: bool) -> None:
    """Starts a new peak, where the system can."""
    gc.collect()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        return
    if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)  # what was freed is given back, and not counted as used
    try:
        CLEAR.write_text("5")
    except OSError:  # not Linux, or not allowed: the peak is then that of the whole process
        pass


def peak_bytes(on_gpu: bool) -> int:
    """The peak since `start_peak`, in bytes; since the start of the process where the system cannot tell otherwise,
    and 0 where it cannot tell at all."""
    if on_gpu:
        return torch.cuda.max_memory_allocated()
    peak = _status("VmHWM")
    if peak is not None:
        return peak
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def held_bytes(on_gpu: bool) -> int:
    """What is taken now, measured as the peak is; 0 where the system cannot tell."""
    return torch.cuda.memory_allocated() if on_gpu else _status("VmRSS") or 0


def _status(name: str) -> int | None:
    """Bytes that Linux tells of this process."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    found = [line for line in lines if line.startswith(name + ":")]
    return 1024 * int(found[0].split()[1]) if found else None
