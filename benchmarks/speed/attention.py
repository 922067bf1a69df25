"""The attentions of the finest blocks alone: FFAM, its rivals, and torch's attention with the same arithmetic."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange

from devtools import in_process

from .models import Subject
from .steps import Place
from .timing import LONG, Contender, Marks

FFAM, LITERAL, PLAIN = "FFAM", "FFAM, literal", "torch, as many multiply-adds"
SCA, DENSE, OWN = "SCA", "dense", "own"
KINDS = (FFAM, LITERAL, PLAIN, SCA, DENSE, OWN)
FACTOR = 2  # FFAM's default


def literal_fine_coarse(q, k, v, frames: int, height: int, width: int, attend) -> torch.Tensor:
    """FFAM word by word: every frame gets its own copy of all keys and values, `(b f) (h w) c`."""

    def copied(t):
        grid = rearrange(t, "n (h w) c -> n c h w", h=height)
        coarse = rearrange(F.avg_pool2d(grid, FACTOR, ceil_mode=True, count_include_pad=False), "n c h w -> n (h w) c")
        fine, coarse = (rearrange(x, "(b f) n c -> b f n c", f=frames) for x in (t, coarse))
        own = lambda i: torch.cat([fine[:, i], *(coarse[:, j] for j in range(frames) if j != i)], dim=1)
        return rearrange(torch.stack([own(i) for i in range(frames)], dim=1), "b f n c -> (b f) n c")

    return attend(q, copied(k), copied(v))


class Attentions:
    """Makes contenders of the attentions in the first blocks of a model, where there are most tokens: a token for
    every latent pixel (SDXL: for every second in both directions)."""

    def __init__(self, subject: Subject):
        from comfy.ldm.modules.attention import attention_pytorch, optimized_attention

        self.subject = subject
        block = in_process.pack("nodes.host.unet").transformer_blocks(subject.model.model.diffusion_model)[0]
        self.channels, self.heads, self.downsampling = block.channels, block.heads, int(block.downsampling)
        training = in_process.pack("ei2.attention").attention
        self.host = lambda q, k, v: optimized_attention(q, k, v, self.heads)
        self.training = lambda q, k, v: training(q, k, v, self.heads)
        self.torch = lambda q, k, v: attention_pytorch(q, k, v, self.heads)
        self.ffam = in_process.pack("ei2.ffam").fine_coarse_attention
        self.others = in_process.pack("ei2.frame_attention")
        self.dtype = "bf16" if subject.on_gpu else "fp32"

    def grid(self, place: Place) -> tuple[int, int]:
        """Height and width in tokens."""
        size = 8 * self.downsampling
        return place.height // size, place.width // size

    def tokens(self, kind: str, place: Place) -> int:
        """How many tokens a query sees."""
        height, width = self.grid(place)
        own, coarse = height * width, -(-height // FACTOR) * -(-width // FACTOR)
        ffam = own + (place.frames - 1) * coarse
        return {SCA: 2 * own, DENSE: place.frames * own, OWN: own}.get(kind, ffam)

    def flops(self, kind: str, place: Place, gradient: bool) -> float:
        """Of both products; the backward pass has twice as many, what it recomputes not counted."""
        height, width = self.grid(place)
        forward = 4 * place.frames * height * width * self.tokens(kind, place) * self.channels
        return forward * (3 if gradient else 1)

    def contender(self, kind: str, place: Place, gradient: bool) -> Contender:
        """`gradient`: forward and backward, with the kernel the pack trains with. Queries, keys and values are there
        beforehand and not counted as memory."""
        attend = self.torch if kind == PLAIN else self.training if gradient else self.host
        generator = torch.Generator().manual_seed(0)
        (height, width), frames = self.grid(place), place.frames
        number = {PLAIN: (1, 1, 1)}.get(kind, (frames,) * 3)
        tokens = (height * width,) * 3
        if kind == PLAIN:  # all queries at once, and no copies: the best case
            tokens = (frames * height * width, *[self.tokens(FFAM, place)] * 2)

        def run(steps: int) -> list[float]:
            marks = Marks(self.subject.on_gpu, 1, 1 + steps)
            with torch.inference_mode(not gradient):
                for _ in range(steps + 1):
                    out = self._attend(kind, inputs, frames, height, width, attend)
                    if gradient:
                        torch.autograd.grad(out, inputs, out.detach())
                    marks()
            return marks.seconds()

        inputs = [
            torch.randn(n, count, self.channels, generator=generator)
            .to(self.subject.device, LONG[self.dtype])
            .requires_grad_(gradient)
            for n, count in zip(number, tokens)
        ]
        return Contender(kind, run)

    def _attend(self, kind: str, inputs: list, frames: int, height: int, width: int, attend: Callable) -> torch.Tensor:
        if kind == FFAM:
            return self.ffam(*inputs, frames, height, width, FACTOR, "average", attend)
        if kind == LITERAL:
            return literal_fine_coarse(*inputs, frames, height, width, attend)
        if kind == SCA:
            return self.others.sparse_causal_attention(*inputs, frames, attend)
        if kind == DENSE:
            return self.others.dense_attention(*inputs, frames, attend)
        return attend(*inputs)
