"""The device of a benchmark, and the peak memory of a piece of work: on the GPU, or of this process."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import sys
from pathlib import Path

import torch

CLEAR = Path("/proc/self/clear_refs")  # Linux: writing 5 resets the peak


def uses_gpu(device: str) -> bool:
    """Whether `--device` means a GPU here."""
    return device != "cpu" and torch.cuda.is_available()


def machine(device: str) -> dict[str, str]:
    """The facts needed to interpret times and peaks."""
    processor = f"{os.cpu_count()} CPU cores ({platform.machine()})"
    name = torch.cuda.get_device_name() if uses_gpu(device) else processor
    return {"machine": name, "torch": torch.__version__, "python": platform.python_version()}


def start_peak(on_gpu: bool) -> None:
    """Resets the peak if the system allows it."""
    gc.collect()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        return
    if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)  # returns freed memory, so that it does not count as used
    try:
        CLEAR.write_text("5")
    except OSError:  # not Linux, or not allowed: the peak is then that of the whole process
        pass


def peak_bytes(on_gpu: bool) -> int:
    """The peak since `start_peak`. If the system cannot reset it, the peak since the
    process started; 0 if it cannot be read."""
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
    """Memory in use now, measured like the peak; 0 if it cannot be read."""
    return torch.cuda.memory_allocated() if on_gpu else _status("VmRSS") or 0


def _status(name: str) -> int | None:
    """A figure in bytes from Linux's status of this process."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(name + ":")), None)
