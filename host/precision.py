"""Which arithmetic the training uses on which device."""

from __future__ import annotations

import comfy.model_management


def training_precision(model, choice: str) -> str:
    """`auto` becomes bf16 where the GPU has it, fp16 on other GPUs, fp32 on a CPU.

    Raises `ValueError` for fp16 on a CPU."""
    device = model.load_device
    if choice == "fp16" and device.type == "cpu":
        raise ValueError("fp16 training needs a GPU: choose precision auto, bf16 or fp32.")
    if choice != "auto":
        return choice
    if device.type == "cpu":
        return "fp32"
    return "bf16" if comfy.model_management.should_use_bf16(device) else "fp16"
