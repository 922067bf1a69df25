"""What "auto" means in training, and the miniature's arithmetic. Elsewhere the host chooses."""

from __future__ import annotations

import comfy.model_management
import torch
from comfy.cli_args import args

from ..ei2.tuning import TuneSettings
from .unet import require_unet

NARROW = 256  # channels of the first level: Stable Diffusion has 320, the miniature 96
NARROW_STEPS, NARROW_RATE = 40, 3e-3


def training_length(model, steps: int, learning_rate: float) -> tuple[int, float, bool]:
    """Steps, learning rate, and whether to stop early; 0 means auto. Automatic steps are a limit for `EarlyStop`; the
    learning rate depends on the UNet's width, because narrow ones such as the miniature's learn faster."""
    narrow = require_unet(model).model_channels < NARROW
    most, rate = (NARROW_STEPS, NARROW_RATE) if narrow else (TuneSettings.steps, TuneSettings.learning_rate)
    return steps or most, learning_rate or rate, not steps


def training_precision(model, choice: str) -> str:
    """`auto` means bf16 where the device has units for it, fp16 on other GPUs where the host trusts it, otherwise fp32.

    Raises `ValueError` for fp16 on a CPU."""
    device = model.load_device
    if choice == "fp16" and device.type == "cpu":
        raise ValueError("fp16 training needs a GPU: choose precision auto, bf16 or fp32.")
    if choice != "auto":
        return choice
    if device.type == "cpu":
        return "bf16" if cpu_has_bf16() else "fp32"
    if comfy.model_management.should_use_bf16(device):
        return "bf16"
    return "fp16" if comfy.model_management.should_use_fp16(device) else "fp32"


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 matrices in units of their own (AMX, AVX-512 BF16); older ones emulate it,
    which takes longer than fp32. False on a torch that cannot tell."""
    tests = (getattr(torch.cpu, name, bool) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(test() for test in tests)


def miniature_dtype(device: torch.device, chosen: bool) -> torch.dtype | None:
    """What a part of the miniature computes in: bf16 on a CPU with units for it, where the host would choose fp32; None
    for the host's own choice. `chosen`: whether the user chose for this part on the command line."""
    faster = device.type == "cpu" and cpu_has_bf16()
    return torch.bfloat16 if faster and not chosen and not args.force_fp32 else None
