"""Rough pictures of latents by the host's previewers, without the VAE."""

from __future__ import annotations

import io
from collections.abc import Iterator

import latent_preview
import numpy as np
import torch
from PIL import Image

from .extras import extra

FRAMES_SHOWN = 3
ROW = 128  # pixels high, or somewhat more
MOST_PIXELS = 4_000_000  # of a picture that comes from a file; ours have a fiftieth of it


def latent_picture(model, latents: torch.Tensor) -> bytes:
    """A few frames side by side as PNG. `latents`: `f c h w`, the host's latent scale. Empty for latents that the host
    has no colours for, and where it fails."""

    def picture() -> bytes:
        image = draw(model, [model.model.process_latent_in(latents)])
        if image is None:
            return b""
        content = io.BytesIO()
        image.save(content, "PNG")
        return content.getvalue()

    return extra("picture of the clip", picture, b"")


def decode_picture(content: bytes) -> torch.Tensor | None:
    """A PNG as an IMAGE, `1 h w 3` in 0..1. None for all else, which a file may hold in its place: Pillow would start
    other programs for some formats, and take minutes for a picture that is small as a file."""

    def picture() -> torch.Tensor | None:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            if image.width * image.height > MOST_PIXELS:
                return None
            pixels = np.array(image.convert("RGB"), dtype=np.float32)
        return torch.from_numpy(pixels / 255).unsqueeze(0)

    return extra("picture from the file", picture)


def draw(model, rows: list[torch.Tensor]) -> Image.Image | None:
    """One row of a few frames for each video `f c h w` (the model's latent scale); None for latents that the host has
    no colours for. Where the user's previewer fails, the linear map to colours does it."""
    latents = torch.cat([_side_by_side(video) for video in rows], dim=-2)[None].float()
    image = None
    for previewer in _previewers(model):
        latents = latents.to(model.load_device)  # where the host puts its previewers
        image = extra("picture by the chosen previewer", lambda: previewer.decode_latent_to_preview(latents))
        if image is not None:
            break
    if image is None:
        return None
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


def _previewers(model) -> Iterator:
    """The user's choice, then the linear map to colours, which needs nothing else."""
    latent_format = model.model.latent_format
    chosen = extra("chosen previewer", lambda: latent_preview.get_previewer(model.load_device, latent_format))
    if chosen is not None:
        yield chosen
    if latent_format.latent_rgb_factors is not None:
        yield latent_preview.Latent2RGBPreviewer(
            latent_format.latent_rgb_factors, latent_format.latent_rgb_factors_bias
        )  # a reshape, which newer hosts take too, is for models that cannot be inflated
