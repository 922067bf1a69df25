"""Tells models apart by their weights, without reading all of them."""

from __future__ import annotations

import torch
from comfy.weight_adapter import WeightAdapterBase

from ..ei2.digest import Unhashable, digest
from ..ei2.model_identity import ModelIdentity
from .inflation import deflate
from .unet import prediction, require_unet

UNET = "diffusion_model."
VALUES_PER_WEIGHT = 4  # of each weight, in a sample


def identify(model) -> ModelIdentity:
    """The base of a MODEL: its UNet as it was loaded, and the LoRAs on it; what this pack's tuning added is left out.
    Raises `ValueError` for models that cannot be inflated."""
    unet = require_unet(model)
    base = deflate(model)
    weights = unpatched_weights(base)
    formats = [torch.finfo(weight.dtype) for weight in weights.values() if weight.is_floating_point()]
    patches = plain_patches(base)
    config = type(model.model.model_config).__name__ if hasattr(model.model, "model_config") else "a UNet"
    name = f"{config} ({unet.model_channels} channels, {len(weights)} weights, predicts {prediction(model)})"
    try:
        sample = weight_sample(weights, VALUES_PER_WEIGHT)
    except Unhashable:
        sample = torch.zeros(0)
    return ModelIdentity(
        family=digest([prediction(model), [(key, tuple(weight.shape)) for key, weight in weights.items()]]),
        name=name,
        sample=sample,
        rounding=max(one.eps for one in formats),
        smallest=max(one.smallest_normal * one.eps for one in formats),
        patches=digest(patches, foreign=lambda value: type(value).__name__) if patches else "",
    )


def unpatched_weights(model) -> dict[str, torch.Tensor]:
    """The UNet's weights by name, sorted, as they were before LoRAs and other patches, loaded or not."""
    patched = model.get_key_patches(UNET)
    return {key.removeprefix(UNET): patched[key][0][0] for key in sorted(patched)}


def weight_sample(weights: dict[str, torch.Tensor], count: int) -> torch.Tensor:
    """`count` values of each weight, evenly spread over it, float32 on the CPU. The same values as long as names and
    shapes are the same. Raises `Unhashable` for weights that the host has not loaded yet (on torch's meta device)."""
    if any(weight.is_meta for weight in weights.values()):
        raise Unhashable("a model that is not loaded yet")
    found = []
    for weight in weights.values():
        size = weight.numel()
        places = torch.arange(1, 2 * count, 2, device=weight.device) * size // (2 * count)
        found.append(weight.detach().reshape(-1)[places].float())
    return torch.cat([values.to(found[0].device) for values in found]).cpu()


def plain_patches(model) -> dict[str, list]:
    """What LoRAs and other nodes put on the MODEL's weights, by weight, as values that `digest` knows."""
    return {key: [_plain(patch) for patch in patches] for key, patches in model.patches.items() if patches}


def _plain(value):
    if isinstance(value, WeightAdapterBase):
        return ["adapter", type(value).__name__, _plain(value.weights)]
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return getattr(value, "__qualname__", type(value).__name__) if callable(value) else value
