"""Null-text optimisation inside the host, and its result as plain conditioning for any of the host's samplers.

The host makes the predictions, so ControlNet, LoRA, pooled vectors and v-prediction stay in effect. Only the
unconditional text is replaced, and only it gets gradients.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial

import comfy.conds
import comfy.samplers
import torch

from ..ei2.inverted_clip import Inversion
from ..ei2.null_text import NullTextSettings, optimize_unconditional, step_ranges
from ..ei2.settings import PRESETS
from ..ei2.tuning import autocast
from .automatic import training_precision
from .clip import same_text
from .inflation import inflation_of
from .inputs import check_boxes, check_one_prompt
from .memory import explained_out_of_memory, plan_training
from .sampling import invert, work_on
from .temporal_stack import TemporalStack
from .training import Differentiable, differentiable_clone, gradients, make_differentiable, without_inference_tensors
from .ui import progress
from .unet import sigma_schedule

LAST_TIMESTEP = 999  # at the start of sampling, by the host's percentages


def inverted_for_guidance(
    model,
    source: torch.Tensor,
    positive: list,
    steps: int,
    refine: int,
    keep: bool,
    prompt: list,
    empty: list,
    settings: NullTextSettings,
) -> Inversion:
    """Inverts the clip `f c h w`, and optimises unconditional embeddings with which guided sampling returns it.
    `positive`: for the inversion; `prompt`: for guided sampling; `keep`: whether to keep the trajectory."""
    precision = null_text_precision(model)
    # checks the memory first; the inversion alone might fit, and takes long
    plan_training("null-text optimisation", model, source, "auto", precision, prompt, optimizer=None)
    trajectory, inner_steps = [], steps * settings.inner_steps
    on_latents = lambda latents: trajectory.append(latents.cpu())
    noise, sigmas = invert(model, source, positive, steps, refine, on_latents, inner_steps)
    trajectory.reverse()
    advance = progress(steps + inner_steps)
    advance(steps)
    on_step = lambda done, loss: advance(steps + done)
    embeddings, _ = null_text(model, trajectory, sigmas, prompt, empty, settings, on_step=on_step, precision=precision)
    start = empty[0][0].detach().cpu().float()
    kept = torch.stack(trajectory).float() if keep else None
    return Inversion(noise, source, sigmas, embeddings, start, settings.guidance, kept)


def null_text(
    model,
    trajectory: Sequence[torch.Tensor],
    sigmas: torch.Tensor,
    source: list,
    empty: list,
    settings: NullTextSettings,
    checkpointing: str = "auto",
    on_step: Callable[[int, float], None] = lambda done, loss: None,
    precision: str = "fp32",
) -> tuple[torch.Tensor, list[float]]:
    """Returns the unconditional embedding of each sampling step, `steps l c` in
    float32 on the CPU, and each step's last loss.

    `trajectory`: the inversion's latents `f c h w` in σ-space, from noise to clean, one per σ of the descending
    `sigmas`; `source`: the prompt that guidance leads to; `empty`: the prompt that the embeddings start from.
    `checkpointing`: auto, on or off; `precision`: from `null_text_precision`. The MODEL, inflated or not, does not
    change. `on_step(done, loss)`: `done` of `steps · inner_steps`; it may raise to cancel.

    Raises `ValueError` like `check_null_text` and if the device is too small, `NonFiniteLoss`, and `OutOfMemory`.
    """
    check_null_text(source, empty, settings)
    doing, latents = "null-text optimisation", trajectory[0]
    plan = plan_training(doing, model, latents, checkpointing, precision, source, optimizer=None)
    with explained_out_of_memory(doing, latents, ""), gradients():
        trajectory = [latents.clone() for latents in trajectory]
        inflation = inflation_of(model)
        options, state = (inflation.settings, inflation.stack.state_dict()) if inflation else (PRESETS["Per-frame"], {})
        learned = []

        def learn(guider, clip: torch.Tensor, sigmas: torch.Tensor, extra_args: dict) -> None:
            make_differentiable(guider)
            predict = partial(_predict, guider, extra_args["model_options"])
            start = guider.conds["negative"][0]["model_conds"]["c_crossattn"].cond
            arithmetic = partial(autocast, precision, clip.device.type)
            learned.extend(optimize_unconditional(predict, trajectory, sigmas, start, settings, on_step, arithmetic))

        with differentiable_clone(model, precision, plan.reserve) as clone:
            stack = TemporalStack.ordinary(model, options, state).eval().requires_grad_(False)
            Differentiable(options, stack, plan.checkpointing, inflation and inflation.warned).put_on(clone)
            conds = without_inference_tensors({"positive": source, "negative": empty})
            work_on(clone, torch.zeros_like(trajectory[0]), conds, sigmas.clone(), learn)
        return tuple(learned)


def _predict(guider, model_options: dict, x: torch.Tensor, sigma: torch.Tensor, text: torch.Tensor | None):
    """The predicted noise `f c h w` for the prompt, or for an unconditional `text` `1 l c`."""
    conds = guider.conds
    prompts = [conds["positive"], None] if text is None else [None, with_text(conds["negative"], text)]
    per_frame = sigma * x.new_ones(len(x))
    denoised = comfy.samplers.calc_cond_batch(guider.inner_model, prompts, x, per_frame, model_options)
    return (x - denoised[0 if text is None else 1]) / sigma


def with_text(conds: list[dict], text: torch.Tensor) -> list[dict]:
    """The host's prepared conditioning with other text `1 l c`."""
    text = comfy.conds.CONDCrossAttn(text)
    return [{**cond, "model_conds": {**cond["model_conds"], "c_crossattn": text}} for cond in conds]


def null_text_precision(model) -> str:
    """The arithmetic of the UNet: fp32 on a CPU; on GPUs bf16 if they support it. fp16 would lose small gradients."""
    if model.load_device.type == "cpu":
        return "fp32"
    precision = training_precision(model, "auto")
    if precision != "fp16":
        return precision
    logging.info("EI2: this GPU has no bf16, so null-text optimisation computes in fp32.")
    return "fp32"


def check_null_text(source: list, empty: list | None, settings: NullTextSettings) -> None:
    """Raises `ValueError` if there is nothing to start from or nothing to optimise."""
    if empty is None:
        raise ValueError(
            'null_text starts from an empty prompt: connect a "CLIP Text Encode" without text to empty, the one that '
            "is the edit's negative."
        )
    check_one_prompt(empty, "empty", "null_text")
    check_boxes(source, "The source prompt")
    check_boxes(empty, "empty")
    if source[0][0].shape[-1] != empty[0][0].shape[-1]:
        raise ValueError("empty comes from another text encoder than the source prompt: use the same CLIP for both.")
    if same_text(source, empty):
        raise ValueError(
            "The source prompt is the same as empty, so null_text has nothing to optimise: connect a prompt that says "
            "what the clip shows to null_source (or to positive), or switch null_text off."
        )
    if math.isclose(settings.guidance, 1.0):
        raise ValueError(
            "null_cfg is 1, where guidance is off and null_text has nothing to optimise: set it to the edit's cfg, "
            "7.5 for instance, or switch null_text off."
        )
    if settings.inner_steps < 1:
        raise ValueError(f"null_inner_steps is {settings.inner_steps}: it must be 1 or more.")


def scheduled_negative(
    model, negative: list, inversion: Inversion, first_step: int = 0, positive: list | None = None
) -> list:
    """The inversion's unconditional embeddings as a CONDITIONING, with one entry per step that applies only at
    that step. Before `first_step` it is the plain `negative`, whose options (pooled vector, ControlNet) all
    entries keep. `positive`: the prompt it is sampled with. Its ControlNet and GLIGEN's boxes may apply to the negative
    too, but the host would give them only to the first entry.

    Raises `ValueError` if `negative` is not the prompt that the embeddings started from, and if `positive` has an area.
    """
    if inversion.unconditional is None:
        raise ValueError("This inversion has no unconditional embeddings: switch null_text on in EI2 Invert.")
    check_one_prompt(negative, "negative", "null_text")
    if not same_text([[inversion.empty]], negative):
        raise ValueError(
            "negative is not the prompt that null_text started from: connect the same empty prompt to empty "
            "of EI2 Invert and to negative, or switch null_text off."
        )
    text, options = negative[0]
    for _, other in positive or []:
        if "area" in other or other.get("set_area_to_bounds"):  # for which the host would take the first entry alone
            raise ValueError(
                "positive has an area set, but null_text learned for the whole picture: use a mask instead "
                '("Conditioning (Set Mask)" with "default"), or switch null_text off.'
            )
        if "control" not in options and other.get("control_apply_to_uncond"):
            options = {**options, "control": other["control"]}
        if "gligen" not in options and "gligen" in other:
            options = {**options, "gligen": other["gligen"]}
    schedule = sigma_schedule(model)
    timesteps = [int((schedule - sigma).abs().argmin()) for sigma in inversion.sigmas[:-1].cpu()]
    entries = list(zip(inversion.unconditional[:, None], step_ranges(timesteps, LAST_TIMESTEP)))
    if first_step > 0:
        until = entries[min(first_step, len(entries)) - 1][1][1]
        entries = [(text, (0.0, until)), *entries[first_step:]]
    return [
        [embedding.to(text), {**options, "start_percent": start, "end_percent": end}]
        for embedding, (start, end) in entries
    ]
