"""Samples source and target in parallel, with attention control between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import comfy.model_patcher
import comfy.samplers
import torch
from comfy.patcher_extension import WrappersMP
from comfy.utils import resize_to_batch_size

from ..ei2.ddim import sample_ddim
from ..ei2.inverted_clip import Inversion
from ..ei2.local_blend import local_blend, word_mask
from ..ei2.map_edit import cross_steps_of, steps_of
from ..ei2.masks import KeptOutside
from ..ei2.prompt_control import Control
from .clip import same_text
from .controlled_unet import BRANCH, Branch, ControlledUNet
from .inflation import require_inflation
from .inputs import check_one_prompt, check_whole
from .memory import sampling_within_memory
from .null_text import scheduled_negative
from .sampling import last_guided, run, strength_at, unguided
from .step_caches import remove_step_caches
from .unet import compute_dtype, require_unet, transformer_blocks
from .windows import room_for

# options of a prompt that shape only the edit: LoRA hooks, image prompts, boxes for words
EDIT_ONLY = ("hooks", "unclip_conditioning", "gligen")
PICTURES = ("concat_latent_image", "concat_mask")  # of a prompt, which some models read beside the latents


@dataclass(frozen=True)
class ControlledSample:
    """`target`: the edit; `source`: the clip as the same run reconstructs it; both `f c h w`. `maps`: `w f h w'`, the
    target's attention to each word of its prompt, averaged over heads, layers and steps."""

    target: torch.Tensor
    source: torch.Tensor
    maps: torch.Tensor


@dataclass(frozen=True)
class Guidance:
    """The guidance of one of the two videos: the host's conditionings, and the strength."""

    positive: list
    negative: list
    cfg: float


class ControlledGuider(comfy.samplers.CFGGuider):
    """Guides a batch of two videos, source and target, `(2 f) c h w`: each by its own prompt and guidance.

    They run one after the other, so batches, chunks and memory are the same as without control.
    """

    # the host looks under the name "positive" for what it shares with other prompts
    CONDS = {"source": ("source", "source negative"), "target": ("positive", "negative")}

    def __init__(self, model, source: Guidance, target: Guidance, sigmas: torch.Tensor, until: float, frames: int):
        """`sigmas`: of the sampling; `until`: the σ above which the target is guided; `frames`: f."""
        super().__init__(model)
        self.guidance, self.sigmas, self.until = {"source": source, "target": target}, sigmas, until
        conds = {}
        for name, (positive, negative) in self.CONDS.items():
            # the SDXL refiner's aesthetic score is another one for negative prompts
            told = [[text, {**options, "prompt_type": "negative"}] for text, options in self.guidance[name].negative]
            conds |= {positive: self.guidance[name].positive, negative: told}
        self.inner_set_conds({name: _for_both(prompts, frames) for name, prompts in conds.items()})

    def predict_noise(self, x, timestep, model_options=None, seed=None):
        step = int((self.sigmas.to(timestep) - timestep[0]).abs().argmin())
        denoised = []
        for (name, (positive, negative)), video, t in zip(self.CONDS.items(), x.chunk(2), timestep.chunk(2)):
            options = comfy.model_patcher.create_model_options_clone(model_options or {})
            conds = [self.conds[negative], self.conds[positive]]
            if name == "source":  # it retraces the inversion, which ran without other nodes' guidance
                options = unguided(options)
                conds = [_without_boxes(one) for one in conds]  # the host gives the edit's to every other prompt
            options.setdefault("transformer_options", {})[BRANCH] = Branch(name, step)
            cfg = self.guidance[name].cfg
            cfg = strength_at(t, cfg, self.until) if name == "target" else cfg
            denoised.append(
                comfy.samplers.sampling_function(
                    self.inner_model, video, t, *conds, cfg, model_options=options, seed=seed
                )
            )
        return torch.cat(denoised)


def _for_both(prompts: list, frames: int) -> list:
    """Prompts for a batch of two videos: each gets the pictures of its frames. The host spreads them over the batch."""
    twice = lambda pictures: torch.cat([resize_to_batch_size(pictures, frames)] * 2)
    given = lambda options: {key: twice(options[key]) for key in PICTURES if options.get(key) is not None}
    return [[text, {**options, **given(options)}] for text, options in prompts]


def _without_boxes(prompts: list[dict]) -> list[dict]:
    """The host's processed prompts without GLIGEN's boxes for words."""
    return [{key: value for key, value in prompt.items() if key != "gligen"} for prompt in prompts]


def sample_controlled(
    model,
    noise: torch.Tensor,
    inversion: Inversion,
    control: Control,
    positive: list,
    negative: list,
    cfg: float,
    kept: KeptOutside | None = None,
    guidance_end: float = 1.0,
) -> ControlledSample:
    """Deterministic DDIM of source and target from the same inverted noise `f c h w`.

    The source uses the inversion's null-text embeddings, if it has them, at the guidance they were optimised for;
    otherwise no guidance, which retraces the inversion. The target uses `cfg` in the first `guidance_end` of the steps,
    and changes only where both LocalBlend and `kept` allow it. Raises `ValueError` like `check_control`, and if the
    result is not finite.
    """
    check_control(model, inversion, control, positive, negative)
    sigmas, steps = inversion.sigmas, len(inversion.sigmas) - 1
    source, target = _guidances(model, inversion, control, positive, negative, cfg)
    clone = model.clone()
    unet, stack = require_unet(model), require_inflation(model).stack
    controlled = ControlledUNet(control, steps, unet, stack, model.load_device)
    remove_step_caches(clone)  # they would skip the source's call and not the target's
    clone.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, BRANCH, controlled)
    clone.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, BRANCH, room_for(inversion.frames))  # one video at a time
    until = last_guided(guidance_end, sigmas)
    guider = ControlledGuider(clone, source, target, sigmas, until, inversion.frames)
    sampler = comfy.samplers.KSAMPLER(sample_ddim, extra_options={"after_step": _after_step(controlled, steps, kept)})
    itemsize = compute_dtype(model).itemsize
    held = lambda clip: controlled.kept_bytes(transformer_blocks(unet), clip, itemsize)
    guided = not cfg == source.cfg == 1
    with sampling_within_memory("sampling with attention control", model, noise, positive, guided, held):
        both = run(clone, torch.cat([noise, noise]), guider, sampler, sigmas, preview=lambda x0: x0.chunk(2)[1])
    source_video, target_video = both.chunk(2)
    words = range(len(control.target.texts))
    return ControlledSample(
        target_video,
        source_video,
        torch.stack([controlled.sums["target"].of(control.target.marks(word)) for word in words]).cpu(),
    )


def check_control(model, inversion: Inversion, control: Control, positive: list, negative: list) -> None:
    """Raises `ValueError` if the control does not fit the model, the inversion or the prompts."""
    check_one_prompt(positive, "positive", "attention control")
    if not same_text(positive, control.target_conditioning):
        raise ValueError(
            'positive is not the target prompt of the attention control: connect the "positive" output of EI2 '
            "Attention Control."
        )
    if any("area" in options or options.get("set_area_to_bounds") for _, options in negative):
        raise ValueError(
            "negative covers only part of the picture. ComfyUI would run it in parts, which "
            "attention control cannot follow: connect a prompt for the whole picture."
        )
    check_whole(model, inversion.frames, "Attention control")
    temporal = control.self_maps in ("temporal", "both")
    if control.self_replace > 0 and temporal and not len(require_inflation(model).stack):
        raise ValueError(
            "self_replace takes temporal attention maps, but this model has no temporal attention: set self_replace to "
            "0, or self_maps to spatial."
        )
    if control.unconditional == "late" and inversion.unconditional is None:
        raise ValueError('unconditional "late" needs an inversion with null_text on: switch it on in EI2 Invert.')


def _guidances(
    model, inversion: Inversion, control: Control, positive: list, negative: list, cfg: float
) -> tuple[Guidance, Guidance]:
    """The guidance of source and target. The source's prompt has the options of `positive`, such as a ControlNet, but
    its own pooled vector, and none of what shapes only the edit."""
    text, options = control.source_conditioning[0]
    shared = {key: value for key, value in positive[0][1].items() if key not in EDIT_ONLY}
    pooled = {key: value for key, value in options.items() if key == "pooled_output"}
    source = [[text, {**shared, **pooled}]]
    if inversion.unconditional is None:
        return Guidance(source, negative, 1.0), Guidance(positive, negative, cfg)
    late = control.unconditional == "late"
    first_step = cross_steps_of(0.5, len(inversion.sigmas) - 1) if late else 0
    scheduled = scheduled_negative(model, negative, inversion, first_step, positive)
    return Guidance(source, scheduled, inversion.null_cfg), Guidance(positive, scheduled if late else negative, cfg)


def _after_step(
    controlled: ControlledUNet, steps: int, kept: KeptOutside | None
) -> Callable[[int, torch.Tensor], torch.Tensor]:
    """The function applied to source and target `(2 f) c h w` after each step: LocalBlend and the mask, if used."""
    blend = controlled.control.blend
    first = steps_of(blend.start, steps) if blend else steps

    def after_step(step: int, x: torch.Tensor) -> torch.Tensor:
        controlled.next_step()
        source, target = x.chunk(2)
        if step >= first:
            marks = {"source": blend.source, "target": blend.target}
            masks = [
                word_mask(maps.of(marks[name]), x.shape[2:], blend.threshold) for name, maps in controlled.sums.items()
            ]
            target = local_blend(source, target, masks[0] | masks[1])
        return torch.cat([source, target if kept is None else kept(step, target)])

    return after_step
