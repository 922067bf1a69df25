"""Plain multi-head attention for the temporal modules, with the kernel that suits the case."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange

MAX_BATCH = 2**15  # CUDA's fused kernels fail beyond 65535 batches x heads; the host splits at the same size


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """softmax(q kᵀ / √width) v for `b n (heads c)` queries and `b m (heads c)` keys and values."""
    if q.shape[0] > MAX_BATCH:
        parts = zip(q.split(MAX_BATCH), k.split(MAX_BATCH), v.split(MAX_BATCH))
        return torch.cat([attention(*part, heads) for part in parts])
    q, k, v = (rearrange(t, "b n (h c) -> b h n c", h=heads) for t in (q, k, v))
    if q.device.type == "cpu":
        # On a CPU the fused kernel is slow for a few tokens, and its backward slow for any number.
        weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1)
        out = weights.to(v.dtype) @ v
    else:
        out = F.scaled_dot_product_attention(q, k, v)
    return rearrange(out, "b h n c -> b n (h c)")
