"""ComfyUI's own code in the test's process, and the pack imported by its path, as ComfyUI does it."""
from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from devtools.environment import SetupError
from devtools.host import locate
from devtools.launch_host import repair_torchvision

ROOT = Path(__file__).resolve().parents[2]
PACK = "ei2_pack"  # any name will do: a user's folder may be called anything


def import_host() -> None:
    try:
        path = locate()
    except SetupError as error:
        raise pytest.UsageError(str(error)) from error
    sys.path.insert(0, str(path))  # before the repository: `nodes` is the host's
    repair_torchvision()
    from comfy.cli_args import args

    args.cpu = not torch.cuda.is_available() and not torch.backends.mps.is_available()


def import_pack() -> None:
    spec = importlib.util.spec_from_file_location(PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACK] = module
    spec.loader.exec_module(module)


import_host()
import_pack()


@pytest.fixture(scope="session")
def pack():
    """Imports one of the pack's modules: `pack("nodes.load_video")`."""
    return lambda name: importlib.import_module(f"{PACK}.{name}")
