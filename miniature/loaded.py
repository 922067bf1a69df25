"""A miniature to draw with, out of the bundled weights or out of a training's checkpoints."""

from __future__ import annotations

from pathlib import Path

import torch

from devtools.in_process import import_pack, pack

from . import host_classes  # sets the host up first
from .train_unet import TextToImage, Tokens, alphas_cumprod


class HostMiniature:
    """The exported weights, loaded by the pack's own node code into the host's MODEL, CLIP and VAE."""

    def __init__(self):
        import_pack()
        self.patcher, self.clip, self.vae = pack("host.miniature").load_miniature()
        from comfy.model_management import get_torch_device, load_models_gpu

        load_models_gpu([self.patcher])
        self.model, self.device = self.patcher.model, get_torch_device()
        sigma = self.model.model_sampling.sigmas.float().cpu()
        self.signal = 1 / (1 + sigma.square())

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.model.process_latent_in(self.vae.encode(pictures.movedim(1, -1)))

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.vae.decode(self.model.process_latent_out(z)).movedim(-1, 1).float().cpu().clamp(0, 1)

    def context(self, prompts: list[str]) -> torch.Tensor:
        return torch.cat([self.clip.encode_from_tokens(self.clip.tokenize(text)) for text in prompts])

    def noise(self, x: torch.Tensor, t: int, context: torch.Tensor) -> torch.Tensor:
        a = self.signal[t]
        sigma = ((1 - a) / a).sqrt()
        x = (x / a.sqrt()).to(self.device)  # the host's latents are z / √ᾱ
        denoised = self.model.apply_model(x, sigma.to(self.device).expand(len(x)), c_crossattn=context.to(self.device))
        return ((x - denoised) / sigma).float().cpu()


class CheckpointMiniature:
    """A training's averaged weights, from the files `train_unet.py` and `train_vae.py` write. Latents `z` are those the
    UNet sees. `vae_file`: None for the bundled autoencoder."""

    def __init__(self, unet_file: Path, vae_file: Path | None, device: str = "cpu"):
        state = torch.load(unet_file, map_location="cpu")
        self.steps, self.device = state["steps"], device
        self.tokens = Tokens(state["tokens"])
        self.model = TextToImage(len(self.tokens.used))
        prefix = "module."
        self.model.load_state_dict(
            {key[len(prefix) :]: value for key, value in state["average"].items() if key.startswith(prefix)}
        )
        self.model.to(device, memory_format=torch.channels_last)
        self.shift, self.scale, self.signal = state["shift"], state["scale"], alphas_cumprod()
        self.vae = host_classes.load_vae(vae_file).to(device)

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        return (self.vae.taesd_encoder(pictures.to(self.device)).cpu() - self.shift) / self.scale

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.vae.taesd_decoder((z * self.scale + self.shift).to(self.device)).float().cpu().clamp(0, 1)

    def context(self, prompts: list[str]) -> torch.Tensor:
        return self.model.text(self.tokens(prompts).to(self.device))[0].float()

    def noise(self, x: torch.Tensor, t: int, context: torch.Tensor) -> torch.Tensor:
        x = x.to(self.device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device, torch.bfloat16):  # as in training
            return self.model.unet(x, torch.full((len(x),), t, device=self.device), context).float().cpu()
