"""The prompt's keys and values: the host computes them for every frame, here once for all frames that share them."""

from __future__ import annotations

import torch
from torch.utils.hooks import RemovableHandle

from .unet import Block


def hook_text_projections(blocks: list[Block], text: torch.Tensor | None, frames: int) -> list[RemovableHandle]:
    """Makes the cross-attentions' key and value projections see the first frame's text of `(b f) l c` and give it to
    all, until the returned handles are removed. Where frames have prompts of their own, or another node changes the
    text on its way, everything stays as it is."""
    if text is None or frames == 1 or text.shape[0] % frames:
        return []
    rows = text.unflatten(0, (-1, frames))
    if not torch.equal(rows, rows[:, :1].expand_as(rows)):
        return []
    once = rows[:, 0]
    narrow = lambda _, inputs: (once, *inputs[1:]) if inputs[0] is text else None
    widen = lambda _, inputs, output: output.repeat_interleave(frames, dim=0) if inputs[0] is once else None
    layers = [layer for block in blocks for layer in (block.module.attn2.to_k, block.module.attn2.to_v)]
    return [
        handle
        for layer in layers
        for handle in (layer.register_forward_pre_hook(narrow), layer.register_forward_hook(widen))
    ]
