"""Long clips through the host's context windows ("Context Windows (Manual)", dim 0), for inflated models.

The host cuts the clip into windows, runs the UNet on one after the other and blends what overlaps. Here every window
is made to run as a video of its own length with its own frames' prompts, and to see the whole clip's coarse tokens:
before the windows of a noise level, the UNet runs once on frames spread over the clip, and FFAM keeps their tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import comfy.context_windows
import comfy.model_patcher
import torch

from ...ei2.windows import CoarseTokens, spread_frames

WHOLE_CLIP = "EI2 whole clip"  # names the `CoarseTokens` among the transformer options
NODE = '"Context Windows (Manual)"'


def context_windows(model_options: dict, frames: int):
    """The handler of the context windows that the host will cut `frames` into, if it will. Raises `ValueError` as
    `check_handler`."""
    handler = model_options.get("context_handler")
    if not isinstance(handler, comfy.context_windows.IndexListContextHandler) or frames <= handler.context_length:
        return None
    check_handler(handler)
    return handler


def check_handler(handler) -> None:
    """Raises `ValueError` for context windows that cannot cut a video into shorter videos."""
    if handler.dim != 0:
        raise ValueError(
            f"The context windows cut dimension {handler.dim} of the latents, but a video's frames are dimension 0: "
            f"set dim of {NODE} to 0."
        )
    if handler.context_length < 2:
        raise ValueError(f"context_length is {handler.context_length}: set it in {NODE} to 2 or more.")
    if not 0 <= handler.context_overlap < handler.context_length:
        raise ValueError(
            f"context_overlap is {handler.context_overlap}, but a window has {handler.context_length} frames: set it "
            f"in {NODE} to fewer, a quarter of context_length for instance."
        )


class WholeClip:
    """A wrapper around what a guider predicts for a clip `f c h w`: it stands between the guider and the host's
    context windows, if the MODEL has some. `coarse`: whether the windows share coarse tokens of the whole clip."""

    def __init__(self, coarse: bool):
        self.coarse = coarse

    def __call__(self, executor, x, timestep, model_options=None, *args, **kwargs):
        model_options = model_options or {}
        handler = context_windows(model_options, len(x))
        if handler is None:
            return executor(x, timestep, model_options, *args, **kwargs)
        options = comfy.model_patcher.create_model_options_clone(model_options)
        options["context_handler"] = VideoWindows(handler, self.coarse)
        return executor(x, timestep, options, *args, **kwargs)


class VideoWindows(comfy.context_windows.ContextHandlerABC):
    """The user's context windows, as a video's batch of frames needs them. `handler`: the user's own, left as it is."""

    def __init__(self, handler, coarse: bool):
        self.handler, self.coarse = handler, coarse

    def should_use_context(self, model, conds, x_in, timestep, model_options) -> bool:
        return self.handler.should_use_context(model, conds, x_in, timestep, model_options)

    def get_resized_cond(self, cond_in, x_in, window, device=None) -> list:
        return self.handler.get_resized_cond(cond_in, x_in, window, device)

    def execute(self, calc_cond_batch, model, conds, x_in, timestep, model_options):
        """The denoised clip per prompt list, `f c h w` each."""
        own = dict(model_options["transformer_options"])
        # Some schedules move their windows from step to step: so that inversion and sampling take the same ones at the
        # same noise level, steps are counted from noise to clean in both.
        own["sample_sigmas"] = own["sample_sigmas"].sort(descending=True).values
        options = {**model_options, "transformer_options": own}

        def run(model, conds, x, timestep, options):
            window = options["transformer_options"]["context_window"].index_list
            return calc_cond_batch(model, at_frames(conds, window, len(x_in)), x, timestep.expand(len(x)), options)

        timestep = timestep[:1]  # by which the host looks up the step; ComfyUI 0.3.75 fails at one per frame
        tokens = None
        try:
            if self.coarse:
                tokens = CoarseTokens(spread_frames(len(x_in), self.handler.context_length - 1))
                own[WHOLE_CLIP] = tokens
                self._record(tokens, run, model, conds, x_in, timestep, options)
            return self.handler.execute(run, model, conds, x_in, timestep, options)
        finally:
            if tokens is not None:
                tokens.clear()

    def _record(self, tokens: CoarseTokens, run, model, conds, x_in, timestep, options) -> None:
        """Runs the UNet on the frames of `tokens`, as on a window, for what FFAM keeps of them."""
        window = comfy.context_windows.IndexListContextWindow(tokens.frames, dim=0)
        options["transformer_options"]["context_window"] = window
        conds = [self.handler.get_resized_cond(cond, x_in, window) for cond in conds]
        run(model, conds, window.get_tensor(x_in), timestep, options)
        tokens.recording = False


def at_frames(conds: list[list[dict] | None], frames: Sequence[int], total: int) -> list[list[dict] | None]:
    """The host's prompts for some frames of a clip of `total`: whatever they hold per frame, picked. Prompts that share
    a ControlNet still share it, so that the host can run them together."""
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
    """A ControlNet or T2I adapter with the hints of some frames of a clip of `total`; itself where it has one hint for
    all."""
    if control is None:
        return None
    previous = control_at(control.previous_controlnet, frames, total)
    hint = control.cond_hint_original
    per_frame = isinstance(hint, torch.Tensor) and len(hint) == total
    if previous is control.previous_controlnet and not per_frame:
        return control
    control = copy.copy(control)  # keeps what the host prepared for this sampling, which the host's copy() would not
    control.previous_controlnet = previous
    if per_frame:
        control.cond_hint_original, control.cond_hint = hint[list(frames)], None
    return control


def _cond_at(cond, pick):
    """One of a prompt's inputs to the UNet, such as its text, as the host wraps it."""
    value = getattr(cond, "cond", None)
    return cond._copy_with(pick(value)) if isinstance(value, torch.Tensor) else cond
