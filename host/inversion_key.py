"""A name for everything that determines an inversion, or the reason why there is none."""

from __future__ import annotations

from ..ei2 import VERSION
from ..ei2.digest import Unhashable, digest
from .fingerprint import plain_patches, unpatched_weights, weight_sample
from .inflation import KEY, inflation_of
from .unet import prediction, sigma_schedule
from .windows import WINDOWS

VALUES_PER_WEIGHT = 64  # of the base model; what is put on it counts whole
COUNTED = ("model_sampling", "manual_cast_dtype")  # object patches that the name takes in
HANDLER, HANDLERS_WRAPPERS = "context_handler", "ContextWindows_"  # of the host's context windows


def inversion_key(model, parts: dict) -> str:
    """The name. `parts`: the clip's latents, conditionings and settings, by name.

    Raises `Unhashable` where something takes part whose content cannot be told: ControlNets and other objects in a
    conditioning, and what other nodes hang on the MODEL apart from weights.
    """
    _refuse_what_others_hang_on(model)
    inflation, base = inflation_of(model), model.model
    weights = unpatched_weights(model)
    return digest(
        {
            "version": VERSION,
            "base": [[name, tuple(weight.shape), weight.dtype] for name, weight in weights.items()],
            "sample": weight_sample(weights, VALUES_PER_WEIGHT),
            "patches": plain_patches(model),
            "inflation": [inflation.settings.to_dict(), inflation.stack.state_dict()] if inflation else None,
            "schedule": [sigma_schedule(model), prediction(model)],
            "computed in": [model.load_device.type, str(model.get_model_object("manual_cast_dtype"))],
            "latent scale": [type(base.latent_format).__name__, base.latent_format.scale_factor],
            "windows": _windows(model),
            "parts": parts,
        }
    )


def _refuse_what_others_hang_on(model) -> None:
    options = {key: value for key, value in model.model_options.items() if key != HANDLER}
    options["transformer_options"] = {
        key: value for key, value in options["transformer_options"].items() if key != WINDOWS
    }
    carried = {
        "options": options,
        "wrappers": [_of_others(found) for found in model.wrappers.values()],
        "callbacks": [_of_others(found) for found in model.callbacks.values()],
        "injections": model.injections,
        "attachments": model.attachments,
        "additional models": _of_others(model.additional_models),
        "hooks": model.hook_patches,
        "weight wrappers": model.weight_wrapper_patches,
        "object patches": {key: value for key, value in model.object_patches.items() if key not in COUNTED},
    }
    for what, value in carried.items():
        if not _empty(value):
            raise Unhashable(f"another node's {what} on the model")


def _of_others(found: dict) -> dict:
    own = (KEY, WINDOWS)
    return {key: value for key, value in found.items() if key not in own and not str(key).startswith(HANDLERS_WRAPPERS)}


def _windows(model) -> list | None:
    """The settings of the context windows. The host's schedules and ways to blend count by their names."""
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
