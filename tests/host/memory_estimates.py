"""The pack's module of memory, as fixtures, and clips that are only a size."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def estimates(pack):
    return pack("host.memory")


@pytest.fixture
def memory(pack):
    return pack("host.memory")


def of_size(frames: int, edge: int = 64) -> torch.Tensor:
    """A clip that takes no memory itself."""
    return torch.zeros(1, 4, 1, 1).expand(frames, 4, edge, edge)
