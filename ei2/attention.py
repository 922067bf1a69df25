"""Plain multi-head attention for whatever trains, with the kernel that suits the case."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange

# CUDA's fused kernels take no batch beyond 65,535, whatever the number of heads; split where the host splits
MAX_BATCH = 2**15
MAX_TOKENS = 1024  # of queries: beyond, the maps that a CPU's plain form keeps need too much memory


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
    """The formula itself: on a CPU the fused kernel is slow for a few tokens, and its backward slow for any number."""
    rows = q.shape[0]
    q = q * (q.shape[-1] // heads) ** -0.5
    q, k, v = (rearrange(t, "b n (h c) -> (b h) n c", h=heads) for t in (q, k, v))
    scores = torch.bmm(q, k.transpose(1, 2))
    # outside autocast, which would make a float32 copy of the largest tensor here; a softmax sums in float32 anyway
    with torch.autocast("cpu", enabled=False):
        weights = scores.softmax(dim=-1)
        out = torch.bmm(weights, v.to(weights.dtype))
    return rearrange(out, "(b h) n c -> b n (h c)", b=rows)
