"""Multi-head attention for training, with the faster kernel for each device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange

# CUDA's fused kernels fail for batches above 65,535, whatever the number of heads; the host splits at this size too
MAX_BATCH = 2**15
MAX_TOKENS = 1024  # queries; above this, the maps kept by the plain form need too much memory


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """softmax(q kᵀ / √width) v for `b n (heads c)` queries and `b m (heads c)` keys and values."""
    if q.shape[0] > MAX_BATCH:
        parts = zip(q.split(MAX_BATCH), k.split(MAX_BATCH), v.split(MAX_BATCH))
        return torch.cat([attention(*part, heads) for part in parts])
    if keeps_scores(q.device, q.dtype, q.shape[1]):
        return _plain_attention(q, k, v, heads)
    q, k, v = (rearrange(t, "b n (h c) -> b h n c", h=heads) for t in (q, k, v))
    return rearrange(F.scaled_dot_product_attention(q, k, v), "b h n c -> b n (h c)")


def keeps_scores(device: torch.device, dtype: torch.dtype, queries: int) -> bool:
    """Whether `attention` keeps its matrix of scores for the backward pass. In half precision on a CPU the fused kernel
    does not use the units for matrix products: with its gradient it takes 1.2 to 7 times as long as the formula. In
    float32 it takes 0.5 to 1.1 times as long (torch 2.13, one thread)."""
    return device.type == "cpu" and dtype != torch.float32 and queries <= MAX_TOKENS


def _plain_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """The formula itself."""
    rows = q.shape[0]
    q = q * (q.shape[-1] // heads) ** -0.5
    q, k, v = (rearrange(t, "b n (h c) -> (b h) n c", h=heads) for t in (q, k, v))
    scores = torch.bmm(q, k.transpose(1, 2))
    # no autocast: it would copy the largest tensor here to float32, and softmax sums in float32 anyway
    with torch.autocast("cpu", enabled=False):
        weights = scores.softmax(dim=-1)
        out = torch.bmm(weights, v.to(weights.dtype))
    return rearrange(out, "(b h) n c -> b n (h c)", b=rows)
