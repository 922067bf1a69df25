"""Group Norm with statistics taken jointly over all frames of a video, as in Tune-A-Video's inflated ResBlocks."""

from __future__ import annotations

import torch
from einops import rearrange


def frames_to_rows(x: torch.Tensor, frames: int) -> torch.Tensor:
    """`(b f) c h w` -> `b c (f h) w`: Group Norm on this shape has one statistic per video and group."""
    return rearrange(x, "(b f) c h w -> b c (f h) w", f=frames)


def rows_to_frames(x: torch.Tensor, frames: int) -> torch.Tensor:
    """`b c (f h) w` -> `(b f) c h w`, the inverse."""
    return rearrange(x, "b c (f h) w -> (b f) c h w", f=frames)


def hook_group_norm(norm: torch.nn.Module, frames: int) -> list:
    """Makes one Group Norm joint until the returned handles are removed; the module itself does not change."""
    before = norm.register_forward_pre_hook(lambda _, inputs: (frames_to_rows(inputs[0], frames), *inputs[1:]))
    after = norm.register_forward_hook(lambda _, __, output: rows_to_frames(output, frames))
    return [before, after]
