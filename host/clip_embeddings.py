"""Pictures and prompts as vectors of one space, by the host's CLIP vision and text models."""

from __future__ import annotations

from collections.abc import Callable

import torch

CHUNK = 8  # frames that go through the vision model at a time
BOTH_HALVES = (
    "Load both halves of one CLIP with Load CLIP Vision and Load CLIP (type stable_diffusion), for instance the "
    "complete file of clip-vit-large-patch14, which may lie in both folders."
)

MOST_ZEROS, LARGEST = 0.01, 1e4  # of a trained projection: the share of zeros, the largest weight over the median one


def image_embeddings(
    clip_vision, images: torch.Tensor, on_frames: Callable[[int], object] = lambda count: None
) -> torch.Tensor:
    """CLIP's embedding of each picture, `f h w 3` in 0..1 -> `f c` in float32 on the CPU. Each is scaled and cut to
    the square in its middle, as CLIP was trained.

    `on_frames` gets the number of pictures done since its last call; it may raise to cancel. Raises `ValueError` for a
    vision model without one embedding per picture (SigLIP) and for embeddings that are not finite.
    """
    found = []
    for chunk in images.split(CHUNK):
        found.append(clip_vision.encode_image(chunk)["image_embeds"].float().cpu())
        if found[-1].ndim != 2:
            raise ValueError(
                "clip_vision gives no single vector per picture (as SigLIP models do not): load a CLIP vision model."
            )
        on_frames(len(chunk))
    embeddings = torch.cat(found)
    if not torch.isfinite(embeddings).all():
        raise ValueError("clip_vision gave NaN or infinite values: load another file, or run it in fp32.")
    return embeddings


def text_embedding(clip, prompt: str, width: int) -> torch.Tensor:
    """The prompt's vector in CLIP's space of `width` numbers, `c` in float32 on the CPU; of long prompts the first 75
    tokens, as CLIP reads no more.

    The host's conditioning carries the vector before its projection into that space, for some models; so the encoder
    is asked for the projected one. Raises `ValueError` without a text encoder of that space, and for one whose
    projection was not in its file (those of Stable Diffusion 1.5 checkpoints have none).
    """
    parts = _encoders(clip)
    if not parts:
        raise ValueError(f"clip holds no CLIP text model, which text alignment needs. {BOTH_HALVES}")
    widths = {name: part.transformer.text_projection.weight.shape[0] for name, part in parts.items()}
    name = next((name for name in parts if widths[name] == width), None)
    if name is None:
        spaces = " and ".join(map(str, widths.values()))
        raise ValueError(
            f"clip and clip_vision do not belong together: a prompt has {spaces} numbers, a picture {width}. "
            + BOTH_HALVES
        )
    encoder = parts[name]
    clip.load_model()
    _check_projection(encoder.transformer.text_projection.weight)
    encoder.reset_clip_options()
    encoder.set_clip_options({"projected_pooled": True})
    try:
        tokens = clip.tokenize(prompt)[name.removeprefix("clip_")]
        vector = encoder.encode_token_weights(tokens)[1][0].float().cpu()
    finally:
        encoder.reset_clip_options()
    if not torch.isfinite(vector).all():
        raise ValueError("clip gave NaN or infinite values: load another file, or run it in fp32.")
    return vector


def _encoders(clip) -> dict[str, torch.nn.Module]:
    """The CLIP text encoders among a CLIP's parts, by their names such as `clip_l`."""
    parts = dict(clip.cond_stage_model.named_children())
    return {
        name: part
        for name, part in parts.items()
        if name.startswith("clip_") and hasattr(getattr(part, "transformer", None), "text_projection")
    }


def _check_projection(weight: torch.Tensor) -> None:
    """A projection that no file filled holds what lay in memory, and the host does not remember that: zeros, the
    identity, or an older tensor's remains, which single absurd values give away as a rule, though not for certain."""
    values = weight.float().abs()
    zeros, usual = (values == 0).float().mean(), values.median()
    if not torch.isfinite(values).all() or zeros > MOST_ZEROS or values.max() > LARGEST * usual:
        raise ValueError(
            "clip came without its projection to CLIP's space of pictures (text_projection), as Stable Diffusion 1.5 "
            f"checkpoints do, so prompts and pictures cannot be compared. {BOTH_HALVES}"
        )
