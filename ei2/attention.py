"""Multi-head attention for training, with the faster kernel for each device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange

# CUDA's fused kernels fail for batches above 65,535, whatever the number of heads; the host splits at this size too
MAX_BATCH = 2**15
MAX_TOKENS = 1024  # queries; above this, the maps kept by the plain form on a CPU need too much memory


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """softmax(q kᵀ / √width) v for `b n (heads c)` queries and `b m (heads c)` keys and values."""
    if q.shape[0] > MAX_BATCH:
        parts = zip(q.split(MAX_BATCH), k.split(MAX_BATCH), v.split(MAX_BATCH))
        return torch.cat([attention(*part, heads) for part in parts])
    if q.device.type == "cpu" and q.shape[1] <= MAX_TOKENS:
        return _plain_attention(q, k, v, heads)
    q, k, v = (rearrange(t, "b n (h c) -> b h n c", h=heads) for t in (q, k, v))
    return rearrange(F.scaled_dot_product_attention(q, k, v), "b h n c -> b n (h c)")


def _plain_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """The formula itself. On a CPU the fused kernel is slow for few tokens, and its backward pass is always slow."""
    rows = q.shape[0]
    q = q * (q.shape[-1] // heads) ** -0.5
    q, k, v = (rearrange(t, "b n (h c) -> (b h) n c", h=heads) for t in (q, k, v))
    scores = torch.bmm(q, k.transpose(1, 2))
    # no autocast: it would copy the largest tensor here to float32, and softmax sums in float32 anyway
    with torch.autocast("cpu", enabled=False):
        weights = scores.softmax(dim=-1)
        out = torch.bmm(weights, v.to(weights.dtype))
    return rearrange(out, "(b h) n c -> b n (h c)", b=rows)
