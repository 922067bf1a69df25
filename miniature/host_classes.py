"""The host's model classes for the training scripts: the same classes that later load the trained weights.

Needs ComfyUI's folder on `PYTHONPATH` (`dev.py train` sees to it).
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from batch.launch_host import repair_torchvision

from .architecture import WEIGHTS

repair_torchvision()  # both must precede every other import of the host
from comfy.cli_args import args as host_args

if not torch.cuda.is_available():
    host_args.cpu = True

BUNDLED_VAE = WEIGHTS / "vae.safetensors"


class Conv2d(torch.nn.Conv2d):
    """torch's convolution, which avoids two slow bf16 backward kernels of CPUs: more than 128 input channels are
    convolved in parts and added (10 times faster), and very few input channels stay in fp32."""

    def forward(self, x):
        if self.in_channels < 16:
            with torch.autocast(x.device.type, enabled=False):
                return super().forward(x.float())
        if self.in_channels <= 128 or self.kernel_size == (1, 1):
            return super().forward(x)
        parts = zip(x.split(64, dim=1), self.weight.split(64, dim=1))
        part, weight = next(parts)
        total = F.conv2d(part, weight, self.bias, self.stride, self.padding)
        for part, weight in parts:
            total = total + F.conv2d(part, weight, None, self.stride, self.padding)
        return total


# The host's own layers skip initialisation and are made for inference; training needs plain ones.
TRAINABLE = SimpleNamespace(
    Linear=torch.nn.Linear,
    Conv2d=Conv2d,
    Conv3d=torch.nn.Conv3d,
    GroupNorm=torch.nn.GroupNorm,
    LayerNorm=torch.nn.LayerNorm,
    Embedding=None,
    conv_nd=lambda dims, *args, **kwargs: {2: Conv2d, 3: torch.nn.Conv3d}[dims](*args, **kwargs),
)


class Embedding(torch.nn.Embedding):
    """torch's embedding with the host's extra argument."""

    def forward(self, tokens, out_dtype=None):
        return super().forward(tokens)


TRAINABLE.Embedding = Embedding


def differentiable_attention(_, q, k, v, heads, mask=None, **options):
    """Batched matmul, softmax, batched matmul, `b n (heads c)`: as an override of the host's attention it trains a
    third faster on a CPU than the fused kernel, whose backward pass is slow there."""
    b, n, width = q.shape
    q, k, v = (t.view(b, -1, heads, width // heads).transpose(1, 2) for t in (q, k, v))
    weights = (q @ k.transpose(-1, -2) * (width // heads) ** -0.5).softmax(dim=-1)
    return (weights @ v).transpose(1, 2).reshape(b, n, width)


def build_unet(config: dict):
    """A UNet of the miniature's kind from the host's class, of the sizes in `architecture.py`, with torch's usual
    initialisation and zero-initialised outputs."""
    from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock, UNetModel
    from comfy.ldm.modules.attention import SpatialTransformer

    from .architecture import HEAD_WIDTH

    unet = UNetModel(**config, num_heads=-1, num_head_channels=HEAD_WIDTH, operations=TRAINABLE)
    last_layers = [unet.out[-1]]
    last_layers += [m.out_layers[-1] for m in unet.modules() if isinstance(m, ResBlock)]
    last_layers += [m.proj_out for m in unet.modules() if isinstance(m, SpatialTransformer)]
    for layer in last_layers:
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    return unet


def load_vae(checkpoint: Path | None):
    """The autoencoder of `train_vae.py`'s checkpoint, or without one the bundled one, from the host's class. The
    bundled one knows its latents' scale and shift as `vae_scale` and `vae_shift`; its encoder does not apply them."""
    from comfy.taesd.taesd import TAESD

    weights = torch.load(checkpoint, map_location="cpu")["model"] if checkpoint else load_file(BUNDLED_VAE)
    vae = TAESD()
    vae.load_state_dict({name: weight.float() for name, weight in weights.items()})
    return vae


def build_text_encoder(rows: int):
    """The miniature's CLIP text encoder from the host's class, for token numbers 0..rows-1."""
    from comfy import clip_model

    from .architecture import TEXT_ENCODER

    def layer_forward(self, x, mask=None, optimized_attention=None):  # the host adds in place, which autograd forbids
        x = x + self.self_attn(self.layer_norm1(x), mask, optimized_attention)
        return x + self.mlp(self.layer_norm2(x))

    clip_model.CLIPLayer.forward = layer_forward
    config = {**TEXT_ENCODER, "hidden_act": "quick_gelu", "max_position_embeddings": 77, "eos_token_id": 49407}
    encoder = clip_model.CLIPTextModel(config, torch.float32, "cpu", TRAINABLE)
    encoder.text_projection = torch.nn.Identity()  # the pooled vector is not used by SD1
    embeddings = encoder.text_model.embeddings
    embeddings.token_embedding = Embedding(rows, TEXT_ENCODER["hidden_size"])
    for embedding in (embeddings.token_embedding, embeddings.position_embedding):
        torch.nn.init.normal_(embedding.weight, std=0.02)
    return encoder
