"""LocalBlend: outside the region of the blend words, the edit keeps the source (Prompt-to-Prompt, Hertz et al., ICLR
2023; per frame as in Video-P2P, Liu et al., CVPR 2024)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange

NEIGHBOURS = 3  # width of the maximum filter in map cells


class MapSum:
    """Cross-attention maps of one branch, summed over layers and steps into one `f d l` tensor.

    All layers must have the same resolution, and so the same number of tokens d.
    """

    def __init__(self):
        self.total: torch.Tensor | None = None
        self.count = 0
        self.height = self.width = 0

    def add(self, maps: torch.Tensor, height: int, width: int) -> None:
        """`f (h w) l`: adds one layer's maps at one step, averaged over heads.
        Raises `ValueError` for a different size."""
        if self.total is None:
            self.total, self.height, self.width = torch.zeros_like(maps), height, width
        if (height, width) != (self.height, self.width) or maps.shape != self.total.shape:
            size = lambda some, h, w: f"{len(some)} frames of {h} x {w} for {some.shape[-1]} tokens"
            raise ValueError(
                f"Attention maps of {size(maps, height, width)} cannot be added to those of "
                f"{size(self.total, self.height, self.width)}: remove the node that changes the model's resolution, "
                "frames or prompts between steps."
            )
        self.total = self.total + maps
        self.count += 1

    def of(self, tokens: torch.Tensor) -> torch.Tensor:
        """The maps of the marked tokens, summed over tokens and averaged over
        layers and steps: `l` of 0 and 1 -> `f h w`.

        Raises `ValueError` if no map has been added.
        """
        if self.total is None:
            raise ValueError("There are no attention maps yet: no layer of the model has been seen.")
        maps = self.total @ tokens.to(self.total) / self.count
        return rearrange(maps, "f (h w) -> f h w", h=self.height, w=self.width)


def word_mask(maps: torch.Tensor, size: tuple[int, int], threshold: float) -> torch.Tensor:
    """Where the words are: `f h w` maps -> `f 1 H W` booleans at the latents' `size`.

    3 x 3 maximum filter, nearest-neighbour upsampling, division by each frame's maximum, then `threshold` (0…1).
    """
    grown = F.max_pool2d(maps[:, None], NEIGHBOURS, stride=1, padding=NEIGHBOURS // 2)
    large = F.interpolate(grown, size=size)
    highest = large.amax(dim=(2, 3), keepdim=True)
    return large > threshold * highest


def local_blend(source: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The target's latents `f c H W` where the mask `f 1 H W` is true, the source's elsewhere."""
    return torch.where(mask, target, source)
