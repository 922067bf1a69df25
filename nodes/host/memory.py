"""How much of the computer's memory is free."""
from __future__ import annotations

import comfy.model_management
import torch


def free_ram() -> int:
    """Bytes of main memory that can be taken now."""
    return comfy.model_management.get_free_memory(torch.device("cpu"))
