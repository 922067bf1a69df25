"""Identifies models and inversions by what determines them, without reading all of a model's weights."""

from __future__ import annotations

import torch
from comfy.cli_args import args
from comfy.controlnet import ControlBase
from comfy.ldm.modules.attention import optimized_attention
from comfy.weight_adapter import WeightAdapterBase

from ..ei2 import VERSION
from ..ei2.digest import Unhashable, digest
from ..ei2.model_identity import ModelIdentity
from .inflation import KEY, deflate, inflation_of
from .unet import latent_scale, prediction, require_unet, sigma_schedule
from .windows import HANDLER, HANDLERS_WRAPPERS, WINDOWS

UNET = "diffusion_model."
VALUES_OF_BASE = 4  # values per weight that identify a model
VALUES_OF_INVERTED = 64  # the same for an inversion's key; patches on the base model count in full
COUNTED = ("model_sampling", "manual_cast_dtype")  # object patches included in the key
NOTES = ("lora_metadata",)  # attachments that change nothing: newer hosts keep what a LoRA's file says of itself


def identify(model) -> ModelIdentity:
    """The base of a MODEL: its UNet as it was loaded, and the LoRAs on it, without this pack's tuning. Raises
    `ValueError` for models that cannot be inflated."""
    unet = require_unet(model)
    base = deflate(model)
    weights = unpatched_weights(base)
    formats = [torch.finfo(weight.dtype) for weight in weights.values() if weight.is_floating_point()]
    patches = plain_patches(base)
    config = type(model.model.model_config).__name__ if hasattr(model.model, "model_config") else "a UNet"
    name = f"{config} ({unet.model_channels} channels, {len(weights)} weights, predicts {prediction(model)})"
    try:
        sample = weight_sample(weights, VALUES_OF_BASE)
    except Unhashable:
        sample = torch.zeros(0)
    return ModelIdentity(
        family=digest([prediction(model), [(key, tuple(weight.shape)) for key, weight in weights.items()]]),
        name=name,
        sample=sample,
        rounding=max(info.eps for info in formats),
        smallest=max(info.smallest_normal * info.eps for info in formats),
        patches=digest(patches, foreign=lambda value: type(value).__name__) if patches else "",
    )


def unpatched_weights(model) -> dict[str, torch.Tensor]:
    """The UNet's weights by name, sorted, as they were before LoRAs and other patches, whether loaded or not."""
    patched = model.get_key_patches(UNET)
    return {key.removeprefix(UNET): patched[key][0][0] for key in sorted(patched)}


def weight_sample(weights: dict[str, torch.Tensor], count: int) -> torch.Tensor:
    """`count` evenly spaced values of each weight, float32 on the CPU. Positions depend only on names and shapes.
    Raises `Unhashable` for weights that the host has not loaded yet (on torch's meta device)."""
    if any(weight.is_meta for weight in weights.values()):
        raise Unhashable("a model that is not loaded yet")
    samples = []
    for weight in weights.values():
        size = weight.numel()
        places = torch.arange(1, 2 * count, 2, device=weight.device) * size // (2 * count)
        samples.append(weight.data.reshape(-1)[places].float())  # `data`: see `_bytes` in ei2/digest.py
    return torch.cat([values.to(samples[0].device) for values in samples]).cpu()


def plain_patches(model) -> dict[str, list]:
    """The patches of LoRAs and other nodes on the MODEL's weights, by weight, as values that `digest` accepts."""
    return {key: [_plain(patch) for patch in patches] for key, patches in model.patches.items() if patches}


def _plain(value):
    if isinstance(value, WeightAdapterBase):
        return ["adapter", type(value).__name__, _plain(value.weights)]
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return getattr(value, "__qualname__", type(value).__name__) if callable(value) else value


def inversion_key(model, parts: dict) -> str:
    """The key of an inversion. `parts`: the clip's latents, conditionings and settings, by name.

    Raises `Unhashable` for objects whose content is not accessible: ControlNets and other objects in a conditioning,
    and anything except weights that other nodes attach to the MODEL.
    """
    _refuse_what_others_hang_on(model)
    inflation, base = inflation_of(model), model.model
    weights = unpatched_weights(model)
    return digest(
        {
            "version": VERSION,
            "base": [[name, tuple(weight.shape), weight.dtype] for name, weight in weights.items()],
            "sample": weight_sample(weights, VALUES_OF_INVERTED),
            "patches": plain_patches(model),
            "inflation": [inflation.settings.to_dict(), inflation.stack.state_dict()] if inflation else None,
            "schedule": [sigma_schedule(model), prediction(model)],
            "computed in": [model.load_device.type, str(model.get_model_object("manual_cast_dtype"))],
            "kernels": [_plain(optimized_attention), sorted(feature.value for feature in args.fast)],
            "latent scale": [type(base.latent_format).__name__, latent_scale(model)],
            "windows": _windows(model),
            "parts": parts,
        }
    )


def attachments(model, options: list[dict]) -> str:
    """A digest of what steers a MODEL besides its weights and the prompt's text: the `options` of its conditionings
    and what other nodes attach to it. Objects count by their class, a ControlNet also by its strength and range: the
    same hints, found by another model or on another machine, differ in their last digits."""
    steering = [{key: value for key, value in one.items() if key != "pooled_output"} for one in options]
    # only another node's, so that snapshots of earlier versions still fit
    schedule = [sigma_schedule(model)] if "model_sampling" in model.object_patches else []
    return digest([steering, _hung_on_by_others(model), *schedule], foreign=_described)


def _described(value) -> list | str:
    if isinstance(value, ControlBase):
        previous = value.previous_controlnet
        kind = [type(value).__name__, float(value.strength), list(map(float, value.timestep_percent_range))]
        return [*kind, previous and _described(previous)]
    return getattr(value, "__qualname__", type(value).__name__)


def _refuse_what_others_hang_on(model) -> None:
    for what, value in _hung_on_by_others(model).items():
        if not _empty(value):
            raise Unhashable(f"another node's {what} on the model")


def _hung_on_by_others(model) -> dict:
    """What other nodes attach to the MODEL apart from weights and context windows, by its name in the plural."""
    options = {key: value for key, value in model.model_options.items() if key != HANDLER}
    options["transformer_options"] = {
        key: value for key, value in options["transformer_options"].items() if key != WINDOWS
    }
    return {
        "options": options,
        "wrappers": [_of_others(found) for found in model.wrappers.values()],
        "callbacks": [_of_others(found) for found in model.callbacks.values()],
        "injections": model.injections,
        "attachments": {key: value for key, value in model.attachments.items() if key not in NOTES},
        "additional models": _of_others(model.additional_models),
        "hooks": model.hook_patches,
        "weight wrappers": model.weight_wrapper_patches,
        "object patches": {key: value for key, value in model.object_patches.items() if key not in COUNTED},
    }


def _of_others(entries: dict) -> dict:
    own = (KEY, WINDOWS)
    return {
        key: value for key, value in entries.items() if key not in own and not str(key).startswith(HANDLERS_WRAPPERS)
    }


def _windows(model) -> list | None:
    """The settings of the context windows. The host's schedules and blending methods count by name."""
    handler = model.model_options.get(HANDLER)
    if handler is None:
        own = model.model_options["transformer_options"].get(WINDOWS)
        return own and ["EI2", own.length, own.overlap]
    settings = {name: getattr(value, "name", value) for name, value in vars(handler).items() if name[0] != "_"}
    return [type(handler).__name__, settings]


def _empty(value) -> bool:
    """Whether nested dictionaries and lists hold nothing."""
    if isinstance(value, dict):
        return all(map(_empty, value.values()))
    return isinstance(value, (list, tuple)) and all(map(_empty, value))
