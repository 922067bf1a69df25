"""Long clips in context windows, for inflated models: set by "EI2 Context Windows" or the host's own node.

At every noise level the clip is split into windows. The UNet runs on one after the other, and overlaps are blended.
Every window runs as a video of its own length with its own frames' prompts, and sees coarse tokens of the whole clip:
before the windows of a noise level, the UNet runs once on frames spread over the clip, and FFAM stores their tokens.

The host's own handler of context windows is not run: it has changed with every release, and since ComfyUI 0.4 it no
longer suits a batch of frames. Only its settings are read.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import comfy.context_windows
import comfy.model_management
import comfy.model_patcher
import torch
from comfy.controlnet import broadcast_image_to
from comfy.patcher_extension import WrappersMP
from comfy.utils import repeat_to_batch_size

from ..ei2.windows import CoarseTokens, pyramid_weights, spread_frames, static_windows
from .step_caches import without_step_caches
from .unet import refuse_several_gpus

WHOLE_CLIP = "EI2 whole clip"  # key of the `CoarseTokens` in the transformer options
WINDOWS = "EI2 context windows"  # key of the `ClipWindows` there
HANDLER, HANDLERS_WRAPPERS = "context_handler", "ContextWindows_"  # what the host's node puts on a MODEL
WINDOW = "context_window"  # key of the `Window` there while the UNet runs on it; the host's own name
NODE = '"EI2 Context Windows"'
HOSTS_NODE = '"Context Windows (Manual)"'
# inputs of the host's node that have no meaning for a video in the batch, and their neutral values
WITHOUT_MEANING = {"cond_retain_index_list": "", "latent_retain_index_list": "", "split_conds_to_windows": False}


@dataclass(frozen=True)
class Window:
    """The frames of a clip that the UNet sees, with the host's own attribute names."""

    index_list: list[int]
    dim: int = 0


@dataclass(frozen=True)
class ClipWindows:
    """How a clip is split. `cut(frames, sigma, sigmas)`: the frames of each window at a noise level `sigma` of the
    sampling's `sigmas`; `weigh(window, frames)`: the weight of each of its frames where windows overlap."""

    length: int
    overlap: int
    cut: Callable[[int, torch.Tensor, torch.Tensor], list[list[int]]] = field(compare=False)
    weigh: Callable[[list[int], int], Sequence[float]] = field(compare=False)
    node: str = NODE


def with_windows(model, length: int, overlap: int):
    """A clone of the MODEL that sees clips longer than `length` frames in windows that share `overlap` frames. Raises
    `ValueError` for values that cannot split a video."""
    cut = lambda frames, sigma, sigmas: static_windows(frames, length, overlap)
    windows = ClipWindows(length, overlap, cut, lambda window, frames: pyramid_weights(len(window)))
    check_windows(windows)
    clone = model.clone()
    without_windows(clone)
    clone.model_options["transformer_options"][WINDOWS] = windows
    clone.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, WINDOWS, room_for(length))
    return clone


def without_windows(model) -> None:
    """Removes context windows from a MODEL that is not shared, including those of the host's node."""
    model.model_options.pop(HANDLER, None)
    model.model_options["transformer_options"].pop(WINDOWS, None)
    for kind, wrappers in model.wrappers.items():
        for key in [key for key in wrappers if key == WINDOWS or str(key).startswith(HANDLERS_WRAPPERS)]:
            model.remove_wrappers_with_key(kind, key)


def room_for(frames: int):
    """Wraps the host's preparation of sampling, so that it makes room for `frames` frames, not for the whole clip."""

    def prepare(executor, model, noise_shape, *args, **kwargs):
        return executor(model, [min(frames, noise_shape[0]), *noise_shape[1:]], *args, **kwargs)

    return prepare


def context_windows(model_options: dict, frames: int) -> ClipWindows | None:
    """The windows for `frames` frames, or None if they fit in one. Raises `ValueError` like `check_windows`, and for
    settings of the host's node that do not apply to a video."""
    handler = model_options.get(HANDLER)
    if isinstance(handler, comfy.context_windows.IndexListContextHandler):
        if frames <= handler.context_length:
            return None
        windows = _of_host(handler)
    else:
        windows = model_options.get("transformer_options", {}).get(WINDOWS)
        if windows is None or frames <= windows.length:
            return None
    check_windows(windows)
    return windows


def check_windows(windows: ClipWindows) -> None:
    """Raises `ValueError` for windows that cannot split a video into shorter videos."""
    if windows.length < 2:
        raise ValueError(f"context_length is {windows.length}: set it in {windows.node} to 2 or more.")
    if not 0 <= windows.overlap < windows.length:
        raise ValueError(
            f"context_overlap is {windows.overlap}, but a window has {windows.length} frames: set it in "
            f"{windows.node} to fewer, for instance a quarter of context_length."
        )


def _of_host(handler) -> ClipWindows:
    """The windows set by the host's "Context Windows (Manual)"."""
    if handler.dim != 0:
        raise ValueError(
            f"The context windows cut dimension {handler.dim} of the latents, but a video's frames are dimension 0: "
            f"set dim of {HOSTS_NODE} to 0, or use {NODE} instead."
        )
    for name, nothing in WITHOUT_MEANING.items():
        if getattr(handler, name, nothing) not in (nothing, []):
            raise ValueError(
                f"{name} of {HOSTS_NODE} has no meaning for a video whose frames are a batch: set it to "
                f"{nothing or 'nothing'}, or use {NODE} instead."
            )
    schedule, fuse = handler.context_schedule.name, handler.fuse_method.name
    length, overlap = handler.context_length, handler.context_overlap

    def cut(frames: int, sigma: torch.Tensor, sigmas: torch.Tensor) -> list[list[int]]:
        if schedule == "standard_static":
            return static_windows(frames, length, overlap)
        if schedule == "batched":
            return [list(range(start, min(start + length, frames))) for start in range(0, frames, length)]
        moving = copy.copy(handler)  # its windows move from step to step
        # Inversion and sampling must use the same windows at the same noise level,
        # so both count steps from noise to clean.
        moving.set_step(sigma, {"transformer_options": {"sample_sigmas": sigmas.sort(descending=True).values}})
        return moving.context_schedule.func(frames, moving, {})

    def weigh(window: list[int], frames: int) -> Sequence[float]:
        if fuse == "flat":
            return [1.0] * len(window)
        if fuse == "relative":
            middle, half = (window[0] + window[-1]) / 2, (window[-1] - window[0] + 1e-2) / 2
            return [max(1e-2, 1 - abs(frame - middle) / half) for frame in window]
        if fuse == "overlap-linear":
            weights, ramp = torch.ones(len(window)), torch.linspace(1e-37, 1, overlap)
            if overlap and min(window) > 0:
                weights[:overlap] = ramp
            if overlap and max(window) < frames - 1:
                weights[-overlap:] = ramp.flip(0)
            return weights.tolist()
        return pyramid_weights(len(window))

    return ClipWindows(length, overlap, cut, weigh, HOSTS_NODE)


class OwnWindows:
    """A wrapper around a guider's prediction for a clip `f c h w`: replaces the windows of the host's node by ours,
    before the host splits the clip itself."""

    def __call__(self, executor, x, timestep, model_options=None, *args, **kwargs):
        model_options = model_options or {}
        refuse_several_gpus("multigpu_clones" in model_options)
        if isinstance(model_options.get(HANDLER), comfy.context_windows.IndexListContextHandler):
            windows = context_windows(model_options, len(x))
            model_options = comfy.model_patcher.create_model_options_clone(model_options)
            del model_options[HANDLER]
            model_options["transformer_options"][WINDOWS] = windows
        return executor(x, timestep, model_options, *args, **kwargs)


class VideoWindows:
    """A wrapper around the prediction for a list of prompts: runs it on the clip's windows, one after the other.
    `coarse`: whether the windows share coarse tokens of the whole clip."""

    def __init__(self, coarse: bool):
        self.coarse = coarse

    def __call__(self, executor, model, conds, x, timestep, model_options, *args, **kwargs):
        """The denoised clip `f c h w` per prompt list."""
        options = model_options.get("transformer_options", {})
        windows: ClipWindows | None = options.get(WINDOWS)
        if windows is None or len(x) <= windows.length:
            return executor(model, conds, x, timestep, model_options, *args, **kwargs)
        check_windows(windows)
        own = without_step_caches(options)

        def run(window: list[int]) -> list[torch.Tensor]:
            comfy.model_management.throw_exception_if_processing_interrupted()
            own[WINDOW] = Window(window)
            seen = at_frames(conds, window, len(x))
            level, host_options = timestep[:1].expand(len(window)), {**model_options, "transformer_options": own}
            return executor(model, seen, x[window], level, host_options, *args, **kwargs)

        tokens = None
        try:
            if self.coarse:
                tokens = own[WHOLE_CLIP] = CoarseTokens(self._anchors(len(x), windows.length))
                run(tokens.frames)
                tokens.recording = False
            return self._blend(run, conds, x, windows, windows.cut(len(x), timestep[:1], options["sample_sigmas"]))
        finally:
            if tokens is not None:
                tokens.clear()

    @staticmethod
    def _anchors(frames: int, length: int) -> list[int]:
        """The frames whose coarse tokens all windows see: one fewer than a window
        has, because a frame sees itself in full."""
        return spread_frames(frames, length - 1)

    @staticmethod
    def _blend(run, conds: list, x: torch.Tensor, windows: ClipWindows, cuts: list[list[int]]) -> list[torch.Tensor]:
        totals, weight = [torch.zeros_like(x) for _ in conds], x.new_zeros(len(x), 1, 1, 1)
        for window in cuts:
            weights = x.new_tensor(windows.weigh(window, len(x))).view(-1, 1, 1, 1)
            weight[window] += weights
            for total, result in zip(totals, run(window)):
                total[window] += weights * result
        return [total.div_(weight) for total in totals]


def at_frames(conds: list[list[dict] | None], frames: Sequence[int], total: int) -> list[list[dict] | None]:
    """The host's prompts for some frames of a clip of `total` frames: per-frame values are selected. Prompts that share
    a ControlNet still share it, so the host can run them together."""
    controls: dict[int, object] = {}
    pick = lambda tensor: tensor[list(frames)] if tensor.ndim and len(tensor) == total else tensor

    def picked(key: str, value):
        if isinstance(value, torch.Tensor):
            return pick(value)
        if key == "control":
            return controls.setdefault(id(value), control_at(value, frames, total))
        if key == "model_conds":
            return {name: _cond_at(cond, pick) for name, cond in value.items()}
        return value

    return [cond and [{key: picked(key, value) for key, value in entry.items()} for entry in cond] for cond in conds]


def control_at(control, frames: Sequence[int], total: int):
    """A ControlNet or T2I adapter with the hints of some frames of a clip of `total` frames; unchanged if it has one
    hint for all. Too many hints are cut off, too few are repeated, as the host does for the whole clip."""
    if control is None:
        return None
    previous = control_at(control.previous_controlnet, frames, total)
    hint = control.cond_hint_original
    several = isinstance(hint, torch.Tensor) and len(hint) > 1
    if previous is control.previous_controlnet and not several:
        return control
    control = copy.copy(control)  # keeps what the host prepared for this sampling; the host's copy() would not
    control.previous_controlnet = previous
    if several:
        some = list(frames)
        control.cond_hint_original, control.cond_hint = broadcast_image_to(hint, total, 1)[some], None
        control.extra_concat_orig = [  # masks of an inpainting ControlNet
            mask if len(mask) == 1 else repeat_to_batch_size(mask, total)[some] for mask in control.extra_concat_orig
        ]
    return control


def _cond_at(cond, pick):
    """One of a prompt's inputs to the UNet, such as its text, as the host wraps it."""
    value = getattr(cond, "cond", None)
    return cond._copy_with(pick(value)) if isinstance(value, torch.Tensor) else cond
