"""Instance Centering (EI², section on STAM): what replaces Layer Norm before the temporal attention."""

from __future__ import annotations

import torch


def instance_center(x: torch.Tensor, axis: str = "frames") -> torch.Tensor:
    """Subtracts the mean and nothing else: no scaling, no affine, so the features keep their variance.

    `x`: `b f d c` (videos, frames, tokens, channels). `axis` (our choice; the paper names none): `frames` takes the
    mean over f per position and channel, so that a static clip becomes exactly zero; `frames_space` over f and d per
    channel; `channels` over c, Layer Norm's axis. The mean is taken in float32.
    """
    dims = {"frames": (1,), "frames_space": (1, 2), "channels": (3,)}[axis]
    mean = x.mean(dim=dims, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
    return (x - mean).to(x.dtype)
