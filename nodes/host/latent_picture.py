"""Rough pictures of latents by the host's previewers, without the VAE."""

from __future__ import annotations

import io

import latent_preview
import numpy as np
import torch
from PIL import Image

FRAMES_SHOWN = 3
ROW = 128  # pixels high, or somewhat more


def latent_picture(model, latents: torch.Tensor) -> bytes:
    """A few frames side by side as PNG. `latents`: `f c h w`, the host's latent scale. Empty for latents that the host
    has no colours for."""
    image = draw(model, [model.model.process_latent_in(latents)])
    if image is None:
        return b""
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def decode_picture(content: bytes) -> torch.Tensor:
    """The picture as an IMAGE, `1 h w 3` in 0..1."""
    pixels = np.array(Image.open(io.BytesIO(content)).convert("RGB"), dtype=np.float32)
    return torch.from_numpy(pixels / 255).unsqueeze(0)


def draw(model, rows: list[torch.Tensor]) -> Image.Image | None:
    """One row of a few frames for each video `f c h w` (the model's latent scale); None for latents that the host has
    no colours for."""
    previewer = _previewer(model)
    if previewer is None:
        return None
    latents = torch.cat([_side_by_side(video) for video in rows], dim=-2)
    image = previewer.decode_latent_to_preview(latents[None].float())
    shown = ROW * len(rows)
    if image.height >= shown:  # the user's previewer gives the full size
        return image.resize((round(image.width * shown / image.height), shown))
    factor = -(-shown // image.height)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _side_by_side(video: torch.Tensor) -> torch.Tensor:
    """Its first, middle and last frames: `f c h w` -> `c h (n w)`."""
    count = min(FRAMES_SHOWN, len(video))
    places = torch.linspace(0, len(video) - 1, count).round().long().tolist()
    return torch.cat([video[place] for place in places], dim=-1)


def _previewer(model):
    """The user's choice, or where that is none, the linear map to colours, which needs nothing else."""
    latent_format = model.model.latent_format
    chosen = latent_preview.get_previewer(model.load_device, latent_format)
    if chosen is not None or latent_format.latent_rgb_factors is None:
        return chosen
    return latent_preview.Latent2RGBPreviewer(
        latent_format.latent_rgb_factors, latent_format.latent_rgb_factors_bias
    )  # a reshape, which newer hosts take too, is for models that cannot be inflated
