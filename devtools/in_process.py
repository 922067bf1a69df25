"""Imports ComfyUI's own code in this process, and the pack by its path, as ComfyUI does."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

import torch

from batch.launch_host import repair_torchvision

from .environment import ROOT
from .host import locate

PACK = "ei2_pack"  # any name will do, because a user's folder may have any name


def import_host(device: str = "auto", torch_attention: bool = False, exact: bool = False) -> None:
    """Makes ComfyUI's modules importable. `device`: `cpu`, or `auto` for a GPU if there is one; `torch_attention`: like
    --use-pytorch-cross-attention, the default on most GPUs, and faster on CPUs; `exact`: like --fp32-unet --fp32-vae.
    Call it before anything imports them. Raises `SetupError` if ComfyUI is not found."""
    sys.path.insert(0, str(locate()))  # before the repository: `nodes` is the host's
    repair_torchvision()
    from comfy.cli_args import args

    args.cpu = device == "cpu" or not (torch.cuda.is_available() or torch.backends.mps.is_available())
    args.use_pytorch_cross_attention |= torch_attention
    args.fp32_unet |= exact
    args.fp32_vae |= exact


def import_pack() -> None:
    """Imports the pack as the module `PACK`."""
    spec = importlib.util.spec_from_file_location(PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACK] = module
    spec.loader.exec_module(module)


def pack(name: str) -> ModuleType:
    """One of the pack's modules, by its name inside it: `pack("nodes.load_video")`."""
    return importlib.import_module(f"{PACK}.{name}")
