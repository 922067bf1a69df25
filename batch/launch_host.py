"""Starts ComfyUI: `python launch_host.py FOLDER [ComfyUI's own options]`.

Adds two things to ComfyUI's `main.py`: it works with a torchvision whose compiled part does not fit the installed
torch, and it ends when its parent process ends (when standard input closes). Imports only the standard library before
ComfyUI starts, because ComfyUI must be the first to import torch.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import runpy
import signal
import sys
import threading
import time
from pathlib import Path

_libraries = []  # torch removes operators when their Library object is deleted


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    """Not a real finder: a hook that runs just before torchvision is first imported."""

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            _define_missing_operators()
        return None


def repair_torchvision() -> None:
    """Makes `import torchvision` work if torch is a CPU build and torchvision a CUDA build. Its compiled operators then
    cannot load, and registering two of them would raise "operator torchvision::nms does not exist". A torchvision whose
    operators load is left alone. Call it before anything imports torchvision."""
    if "torchvision" not in sys.modules:
        sys.meta_path.insert(0, _BeforeTorchvision())


def _define_missing_operators() -> None:
    import torch

    spec = importlib.util.find_spec("torchvision")
    if spec is None:
        return
    compiled = [file for folder in spec.submodule_search_locations for file in Path(folder).glob("_C*.*")]
    try:
        for file in compiled:
            torch.ops.load_library(str(file))
        if compiled:
            return
    except OSError:
        pass  # its CUDA libraries are not here
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _libraries.append(library)


def _end_with_parent() -> None:
    """Waits until standard input closes, then stops ComfyUI like Ctrl-C; kills it if that takes too long."""
    while os.read(0, 1024):
        pass
    if os.name == "nt":
        import _thread

        _thread.interrupt_main()
    else:
        os.kill(os.getpid(), signal.SIGINT)
    time.sleep(8)
    os._exit(1)


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    repair_torchvision()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell start with SIGINT ignored
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # Ray starts processes with SIGINT blocked
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # As if main.py had been started directly: `import server` must find ComfyUI's, not a module next to this file.
    sys.path[0] = str(folder)
    sys.argv = [str(folder / "main.py"), *sys.argv[2:]]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
