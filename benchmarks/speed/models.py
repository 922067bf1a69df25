"""The models that are timed, in a real ComfyUI in this process."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.machine import uses_gpu
from devtools import in_process, random_checkpoint

TOKENS = 77  # of a prompt
POOLED = 1280  # channels of SDXL's pooled prompt
MODELS = ("miniature", "sd15", "sdxl")


@dataclass(frozen=True)
class Subject:
    """A MODEL of the host and its autoencoder. `on_gpu`: where it computes."""

    name: str
    model: object
    autoencoder: torch.nn.Module
    on_gpu: bool

    @property
    def unet_config(self) -> dict:
        """The arguments with which the host made the UNet."""
        return dict(self.model.model.model_config.unet_config)

    @property
    def device(self) -> torch.device:
        return self.model.load_device

    def prompt(self) -> list:
        """The conditioning of a random prompt: no encoder is timed."""
        generator = torch.Generator().manual_seed(1)
        tokens = torch.randn(1, TOKENS, self.unet_config["context_dim"], generator=generator)
        return [[tokens, {"pooled_output": torch.randn(1, POOLED, generator=generator)}]]


def clip(frames: int, width: int, height: int) -> torch.Tensor:
    """Pictures `f 3 h w` of noise, -1..1: no time depends on what they show."""
    return torch.rand(frames, 3, height, width, generator=torch.Generator().manual_seed(2)) * 2 - 1


def latents(frames: int, width: int, height: int) -> torch.Tensor:
    """Random latents `f 4 h/8 w/8`."""
    return torch.randn(frames, 4, height // 8, width // 8, generator=torch.Generator().manual_seed(3))


def load(name: str, device: str) -> Subject:
    """`name`: one of `MODELS`; all but the miniature have random weights and go through the host's checkpoint loader.
    `device`: auto, cpu or cuda. Imports ComfyUI and the pack if needed."""
    if in_process.PACK not in sys.modules:
        in_process.import_host(device, torch_attention=True)
        in_process.import_pack()
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        if name == "miniature":
            model, _, vae = in_process.pack("nodes.host.miniature").load_miniature()
        else:
            import comfy.sd

            path = Path(folder) / f"random-{name}.safetensors"
            random_checkpoint.write(path, name)
            model, _, vae, _ = comfy.sd.load_checkpoint_guess_config(str(path), output_vae=True, output_clip=False)
    return Subject(name, model, vae.first_stage_model, uses_gpu(device))
