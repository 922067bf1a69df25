"""The attentions of the finest blocks alone: FFAM, the compared methods, and
torch's attention with the same arithmetic."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange

from devtools.in_process import pack

from .steps import Place, Subject
from .timing import LONG, Contender, Marks

FFAM, LITERAL, PLAIN = "FFAM", "FFAM, literal", "torch, as many multiply-adds"
SCA, DENSE, OWN = "SCA", "dense", "own"
KINDS = (FFAM, LITERAL, PLAIN, SCA, DENSE, OWN)
FACTOR = 2  # FFAM's default


def literal_fine_coarse(q, k, v, frames: int, height: int, attend) -> torch.Tensor:
    """FFAM by its definition: every frame gets its own copy of all keys and values, `(b f) (h w) c`."""

    def copied(t):
        grid = rearrange(t, "n (h w) c -> n c h w", h=height)
        coarse = rearrange(F.avg_pool2d(grid, FACTOR, ceil_mode=True, count_include_pad=False), "n c h w -> n (h w) c")
        fine, coarse = (rearrange(x, "(b f) n c -> b f n c", f=frames) for x in (t, coarse))
        own = lambda i: torch.cat([fine[:, i], *(coarse[:, j] for j in range(frames) if j != i)], dim=1)
        return rearrange(torch.stack([own(i) for i in range(frames)], dim=1), "b f n c -> (b f) n c")

    return attend(q, copied(k), copied(v))


class Attentions:
    """Makes contenders of the attentions in a model's first blocks, which have the most tokens: one for every latent
    pixel (SDXL: for every second in both directions)."""

    def __init__(self, subject: Subject):
        self.subject = subject
        block = pack("host.unet").transformer_blocks(subject.model.model.diffusion_model)[0]
        self.channels, self.heads, self.downsampling = block.channels, block.heads, int(block.downsampling)
        self.dtype = "bf16" if subject.on_gpu else "fp32"

    def grid(self, place: Place) -> tuple[int, int]:
        """Height and width in tokens."""
        size = 8 * self.downsampling
        return place.height // size, place.width // size

    def tokens(self, kind: str, place: Place) -> int:
        """The number of tokens that a query sees."""
        height, width = self.grid(place)
        own, coarse = height * width, -(-height // FACTOR) * -(-width // FACTOR)
        ffam = own + (place.frames - 1) * coarse
        return {SCA: 2 * own, DENSE: place.frames * own, OWN: own}.get(kind, ffam)

    def flops(self, kind: str, place: Place, gradient: bool) -> float:
        """FLOPs of both products. The backward pass has twice as many; its recomputation is not counted."""
        height, width = self.grid(place)
        forward = 4 * place.frames * height * width * self.tokens(kind, place) * self.channels
        return forward * (3 if gradient else 1)

    def contender(self, kind: str, place: Place, gradient: bool) -> Contender:
        """`gradient`: forward and backward, with the kernel that the pack trains with. Queries, keys and values exist
        before and do not count as memory."""
        generator, (height, width), frames = torch.Generator().manual_seed(0), self.grid(place), place.frames
        shapes = [(frames, height * width)] * 3
        if kind == PLAIN:  # all queries at once, without copies: the best case
            shapes = [(1, frames * height * width), *[(1, self.tokens(FFAM, place))] * 2]
        attend = self._attend(kind, gradient, (frames, height, width))

        def run(steps: int) -> list[float]:
            marks = Marks(self.subject.on_gpu, 1, 1 + steps)
            with torch.inference_mode(not gradient):
                for _ in range(steps + 1):
                    out = attend(*inputs)
                    if gradient:
                        torch.autograd.grad(out, inputs, out.detach())
                    marks()
            return marks.seconds()

        random = [torch.randn(*shape, self.channels, generator=generator) for shape in shapes]
        inputs = [t.to(self.subject.device, LONG[self.dtype]).requires_grad_(gradient) for t in random]
        return Contender(kind, run)

    def _attend(self, kind: str, gradient: bool, size: tuple[int, int, int]):
        """A function of queries, keys and values. `size`: frames, height and width in tokens."""
        from comfy.ldm.modules.attention import attention_pytorch, optimized_attention

        kernel = attention_pytorch if kind == PLAIN else pack("ei2.attention").attention if gradient else None
        attend = lambda q, k, v: (kernel or optimized_attention)(q, k, v, self.heads)
        frame_attention, ffam = pack("ei2.frame_attention"), pack("ei2.ffam").fine_coarse_attention
        return {
            FFAM: lambda *qkv: ffam(*qkv, *size, FACTOR, "average", attend),
            LITERAL: lambda *qkv: literal_fine_coarse(*qkv, *size[:2], attend),
            SCA: lambda *qkv: frame_attention.sparse_causal_attention(*qkv, size[0], attend),
            DENSE: lambda *qkv: frame_attention.dense_attention(*qkv, size[0], attend),
        }.get(kind, attend)
