"""The baseline: a tuning step as Tune-A-Video's public training script does it (Wu et al., ICCV 2023).

It has that script's optimisations: fp16 autocast with a GradScaler around float32 weights (on a CPU bf16, which needs
no scaler: fp16 is several times slower there), every ResBlock and transformer of the down and up blocks checkpointed,
the clip encoded in every step by the autoencoder in half precision, torch's own AdamW, the loss read back in every
step. The script also encodes the prompt in every step; that is left out here, in the baseline's favour.

The script means to train the q projections of both attentions and the temporal attention in every block. As shipped it
does so only in the middle and up blocks: a reentrant checkpoint passes no gradient on where no input needs one, and
nothing before the first trained layer does (its issues 18 and 69). Both are here.

Nothing here uses the pack, so that the baseline stays the same when the pack changes. The UNet is the host's class with
plain torch layers. It was compared with the script's commit 7d4a89a: the same outputs, times within a few per cent.
"""

from __future__ import annotations

import copy
from functools import partial
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch.utils.checkpoint import checkpoint

LATENT_SCALE = 0.18215
MAX_BATCH = 65535  # CUDA's fused attention kernels take no larger batch, for any number of heads
LAYERS = SimpleNamespace(
    Linear=torch.nn.Linear,
    Conv2d=torch.nn.Conv2d,
    GroupNorm=torch.nn.GroupNorm,
    LayerNorm=torch.nn.LayerNorm,
    conv_nd=lambda dims, *args, **kwargs: torch.nn.Conv2d(*args, **kwargs),
)


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """Multi-head attention on `b n (heads c)`: a memory-efficient kernel on a GPU, plain products on a CPU, like the
    script with and without xformers."""
    if q.is_cuda and q.shape[0] > MAX_BATCH:
        parts = zip(*(t.split(MAX_BATCH) for t in (q, k, v)))
        return torch.cat([attention(*part, heads) for part in parts])
    q, k, v = (rearrange(t, "b n (h c) -> b h n c", h=heads) for t in (q, k, v))
    if q.is_cuda:
        out = F.scaled_dot_product_attention(q, k, v)
    else:
        q, k, v = (t.flatten(0, 1) for t in (q, k, v))
        empty, scale = torch.empty(len(q), q.shape[1], k.shape[1], dtype=q.dtype), q.shape[-1] ** -0.5
        scores = torch.baddbmm(empty, q, k.transpose(-1, -2), beta=0, alpha=scale)
        out = rearrange(scores.softmax(dim=-1).to(v.dtype) @ v, "(b h) n c -> b h n c", h=heads)
    return rearrange(out, "b h n c -> b n (h c)")


class TemporalAttention(torch.nn.Module):
    """Self-attention over frames at every position, after a Layer Norm, added to its input; zero at first."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = torch.nn.LayerNorm(channels).requires_grad_(False)  # not trained in the source either
        self.to_q, self.to_k, self.to_v = (torch.nn.Linear(channels, channels, bias=False) for _ in range(3))
        self.to_out = torch.nn.Linear(channels, channels)
        torch.nn.init.zeros_(self.to_out.weight)
        torch.nn.init.zeros_(self.to_out.bias)

    def forward(self, x: torch.Tensor, frames: int) -> torch.Tensor:
        """`f d c`, the frames of one video."""
        tokens = rearrange(x, "(b f) d c -> (b d) f c", f=frames)
        normed = self.norm(tokens)
        mixed = attention(self.to_q(normed), self.to_k(normed), self.to_v(normed), self.heads)
        return rearrange(tokens + self.to_out(mixed), "(b d) f c -> (b f) d c", d=x.shape[1])


class VideoGroupNorm(torch.nn.Module):
    """A Group Norm whose statistics are joint over all frames."""

    def __init__(self, norm: torch.nn.GroupNorm, video: SimpleNamespace):
        super().__init__()
        self.norm, self.video = norm, video

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        joint = self.norm(rearrange(x, "(b f) c h w -> b c f h w", f=self.video.frames))
        return rearrange(joint, "b c f h w -> (b f) c h w")


class LiteralUNet(torch.nn.Module):
    """The host's UNet inflated as in Tune-A-Video, with trainable layers.

    `config`: the arguments of the host's class; `weights`: its state dict, which is copied. Two attributes may change
    at any time: `checkpointing`, whether activations are recomputed, and `shipped`, whether the first blocks get no
    gradient.
    """

    def __init__(self, config: dict, weights: dict[str, torch.Tensor], dtype: torch.dtype, device: torch.device):
        from comfy.ldm.modules.attention import BasicTransformerBlock, SpatialTransformer
        from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock, UNetModel

        super().__init__()
        self.checkpointing, self.shipped, self.video = True, True, SimpleNamespace(frames=1)
        self.adm_channels = config.get("adm_in_channels")  # SDXL's sizes and pooled prompt
        with torch.device("meta"):
            self.unet = UNetModel(**{**config, "dtype": dtype}, operations=LAYERS)
        self.unet.to_empty(device=device)
        self.unet.load_state_dict(weights)
        self.unet.to(dtype).requires_grad_(False)
        self.temporal = torch.nn.ModuleList()
        middle = set(self.unet.middle_block.modules())  # the script does not checkpoint it
        for module in list(self.unet.modules()):
            if isinstance(module, (ResBlock, SpatialTransformer)) and module not in middle:
                module.forward = partial(self._checkpointed, module.forward)
            if isinstance(module, ResBlock):
                for layers in (module.in_layers, module.out_layers):
                    layers[0] = VideoGroupNorm(layers[0], self.video)
            elif isinstance(module, BasicTransformerBlock):
                for layer, attend in ((module.attn1, self._sparse_causal), (module.attn2, self._cross)):
                    layer.to_q.requires_grad_(True)
                    layer.forward = partial(attend, layer)
                temporal = TemporalAttention(module.norm1.weight.shape[0], module.n_heads).to(device, dtype)
                self.temporal.append(temporal)
                module.forward = partial(self._block, module.forward, temporal)
        self.unet.out[0] = VideoGroupNorm(self.unet.out[0], self.video)

    def trainable(self) -> list[torch.nn.Parameter]:
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def forward(self, x: torch.Tensor, timestep: torch.Tensor, context: torch.Tensor, frames: int) -> torch.Tensor:
        """ε for latents `(b f) c h w` at one timestep per latent, and prompts `(b f) n c`."""
        self.video.frames = frames
        y = x.new_zeros(x.shape[0], self.adm_channels) if self.adm_channels else None
        return self.unet(x, timestep, context, y)

    def _checkpointed(self, forward, x, *args, **kwargs):
        if "transformer_options" in kwargs:  # the host keeps changing it
            kwargs["transformer_options"] = dict(kwargs["transformer_options"])
        run = partial(forward, **kwargs)
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(run, x, *args, use_reentrant=self.shipped)
        with torch.set_grad_enabled(torch.is_grad_enabled() and (x.requires_grad or not self.shipped)):
            return run(x, *args)

    def _block(self, forward, temporal: TemporalAttention, x, **kwargs) -> torch.Tensor:
        return temporal(forward(x, **kwargs), self.video.frames)

    def _sparse_causal(self, layer, x, **_) -> torch.Tensor:
        """K, V = [frame 0 ; frame max(i - 1, 0)]."""
        frames = self.video.frames
        former = (torch.arange(frames) - 1).clamp(min=0)
        k, v = (rearrange(to(x), "(b f) d c -> b f d c", f=frames) for to in (layer.to_k, layer.to_v))
        k, v = (torch.cat([t[:, [0] * frames], t[:, former]], dim=2) for t in (k, v))
        k, v = (rearrange(t, "b f d c -> (b f) d c") for t in (k, v))
        return layer.to_out(attention(layer.to_q(x), k, v, layer.heads))

    @staticmethod
    def _cross(layer, x, context, **_) -> torch.Tensor:
        return layer.to_out(attention(layer.to_q(x), layer.to_k(context), layer.to_v(context), layer.heads))


def alphas() -> torch.Tensor:
    """Stable Diffusion's cumulative products, one per timestep."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    return (1 - betas).cumprod(0)


class LiteralTuning:
    """A training run of the script on one clip: `step()` is one step.

    `autoencoder`: the host's, copied; `pixels`: `f 3 h w` in -1..1; `context`: `1 n c`; `half`: the dtype of the
    autocast, the autoencoder, latents and prompt, float32 for none; `once`: encodes the clip in the first step only,
    the script in every step; `rate`: the learning rate, by default the script's.
    """

    def __init__(self, unet: LiteralUNet, autoencoder, pixels, context, half: torch.dtype, once=False, rate=3e-5):
        device = next(unet.parameters()).device
        self.unet, self.half, self.once, self.latents = unet, half, once, None
        self.autoencoder = copy.deepcopy(autoencoder).to(device, half, memory_format=torch.contiguous_format)
        self.pixels, self.context = pixels.to(device), context.to(device, half)
        self.alphas = alphas().to(device)
        self.optimizer = torch.optim.AdamW(unet.trainable(), lr=rate, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8)
        self.scaler = torch.amp.GradScaler(device.type, enabled=half == torch.float16)

    @torch.no_grad()
    def encode(self) -> torch.Tensor:
        """Latents `f c h w` of the clip."""
        return self.autoencoder.encode(self.pixels.to(self.half)) * LATENT_SCALE

    def step(self) -> float:
        """Returns the loss."""
        frames, device = len(self.pixels), self.pixels.device
        latents = self.latents if self.latents is not None else self.encode()
        self.latents = latents if self.once else None
        noise = torch.randn_like(latents)
        timestep = torch.randint(0, 1000, (1,), device=device)
        alpha = self.alphas[timestep].view(1, 1, 1, 1).to(latents)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        with torch.autocast(device.type, self.half, enabled=self.half != torch.float32):
            predicted = self.unet(noisy, timestep.expand(frames), self.context.expand(frames, -1, -1), frames)
        loss = F.mse_loss(predicted.float(), noise.float())
        value = loss.item()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.unet.trainable(), 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return value


@torch.no_grad()
def ddim(unet: LiteralUNet, latents: torch.Tensor, context: torch.Tensor, guidance: float | None, steps: int, on_step):
    """The latents after the first `steps` of 50 steps of DDIM from `latents` `f c h w`. With `guidance` they lead down
    from noise, both prompts in one batch (`context`: `2 n c`); without it, up to noise (`1 n c`). `on_step()` is called
    after each step."""
    frames = len(latents)
    alpha = alphas().to(latents)
    grid = torch.arange(steps) * 20 + 1
    grid = grid if guidance is None else grid.flip(0)
    chunks = len(context)
    context = context.repeat_interleave(frames, dim=0)
    for i, t in enumerate(grid.tolist()):
        here, there = alpha[t], alpha[t - 1 if i + 1 == steps else grid[i + 1]]
        timestep = torch.full((chunks * frames,), t, device=latents.device)
        noise = unet(latents.repeat(chunks, 1, 1, 1), timestep, context, frames)
        if guidance is not None:
            plain, prompted = noise.chunk(2)
            noise = plain + guidance * (prompted - plain)
        clean = (latents - (1 - here).sqrt() * noise) / here.sqrt()
        latents = there.sqrt() * clean + (1 - there).sqrt() * noise
        on_step()
    return latents
