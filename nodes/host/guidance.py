"""Sampling of source and target side by side, with attention control between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import comfy.model_patcher
import comfy.samplers
import torch
from comfy.patcher_extension import WrappersMP

from ...ei2.attention_control import cross_steps_of, steps_of
from ...ei2.ddim import sample_ddim
from ...ei2.local_blend import local_blend, word_mask
from ...ei2.masks import KeptOutside
from ..control import Control
from ..inversion import Inversion
from .checks import check_one_prompt, check_whole
from .control import BRANCH, Branch, ControlledUNet
from .inflation import require_inflation
from .memory import sampling_within_memory
from .null_text import scheduled_negative
from .prompts import same_text
from .sampling import run, unguided
from .unet import require_unet, transformer_blocks


@dataclass(frozen=True)
class ControlledSample:
    """`target`: the edit; `source`: the clip as the same run gives it back; both `f c h w`. `maps`: `w f h w'`, the
    target's attention to each word of its prompt, mean over the heads, layers and steps."""

    target: torch.Tensor
    source: torch.Tensor
    maps: torch.Tensor


class ControlledGuider(comfy.samplers.CFGGuider):
    """Guides a batch of two videos, source and target, `(2 f) c h w`: each by its own prompt and guidance.

    They run one after the other, so that batches, chunks and memory are those of a sampling without control.
    """

    def __init__(self, model, source: tuple[list, list, float], target: tuple[list, list, float], sigmas: torch.Tensor):
        """`source`, `target`: positive, negative and guidance; `sigmas`: of the sampling."""
        super().__init__(model)
        self.guidance = {"source": source[2], "target": target[2]}
        self.sigmas = sigmas
        # "positive" is the name by which the host looks for what it shares with other prompts
        names = ("source", "source negative", "positive", "negative")
        self.inner_set_conds(dict(zip(names, (*source[:2], *target[:2]))))

    def predict_noise(self, x, timestep, model_options=None, seed=None):
        step = int((self.sigmas.to(timestep) - timestep[0]).abs().argmin())
        names = {"source": ("source", "source negative"), "target": ("positive", "negative")}
        denoised = []
        for (name, (positive, negative)), video, t in zip(names.items(), x.chunk(2), timestep.chunk(2)):
            options = comfy.model_patcher.create_model_options_clone(model_options or {})
            if name == "source":  # which retraces the inversion, where other nodes' guidance was off
                options = unguided(options)
            options.setdefault("transformer_options", {})[BRANCH] = Branch(name, step)
            denoised.append(
                comfy.samplers.sampling_function(
                    self.inner_model,
                    video,
                    t,
                    self.conds[negative],
                    self.conds[positive],
                    self.guidance[name],
                    model_options=options,
                    seed=seed,
                )
            )
        return torch.cat(denoised)


def sample_controlled(
    model,
    noise: torch.Tensor,
    inversion: Inversion,
    control: Control,
    positive: list,
    negative: list,
    cfg: float,
    kept: KeptOutside | None = None,
) -> ControlledSample:
    """Deterministic DDIM of source and target from the same inverted noise `f c h w`.

    The source takes the inversion's null-text embeddings, if it has them, at the guidance they were made for, and
    otherwise no guidance, which retraces the inversion; the target takes `cfg`, and changes only what both LocalBlend
    and `kept` let it. Raises `ValueError` as `check_control`, and when the result is not finite.
    """
    check_control(model, inversion, control, positive, negative)
    sigmas, steps = inversion.sigmas, len(inversion.sigmas) - 1
    plain, source_cfg = negative, 1.0
    if inversion.unconditional is not None:
        source_cfg = inversion.null_cfg
        late = control.unconditional == "late"
        scheduled = scheduled_negative(model, plain, inversion, cross_steps_of(0.5, steps) if late else 0, positive)
        source_negative, negative = scheduled, scheduled if late else plain
    else:
        source_negative = plain
    options = {**positive[0][1], **_pooled(control.source_conditioning)}
    source = [[control.source_conditioning[0][0], options]]

    clone = model.clone()
    unet, stack = require_unet(model), require_inflation(model).stack
    controlled = ControlledUNet(control, steps, unet, stack, model.load_device)
    clone.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, BRANCH, controlled)
    guider = ControlledGuider(clone, (source, source_negative, source_cfg), (positive, negative, cfg), sigmas)
    sampler = comfy.samplers.KSAMPLER(sample_ddim, extra_options={"after_step": _after_step(controlled, steps, kept)})
    dtype = model.get_model_object("manual_cast_dtype") or model.model_dtype()
    kept = lambda clip: controlled.kept_bytes(transformer_blocks(unet), clip, dtype.itemsize)
    guided = not cfg == source_cfg == 1
    with sampling_within_memory("sampling with attention control", model, noise, positive, guided, kept):
        both = run(clone, torch.cat([noise, noise]), guider, sampler, sigmas, preview=lambda x0: x0.chunk(2)[1])
    source_video, target_video = both.chunk(2)
    words = range(len(control.target.texts))
    return ControlledSample(
        target_video,
        source_video,
        torch.stack([controlled.sums["target"].of(control.target.marks(word)) for word in words]).cpu(),
    )


def check_control(model, inversion: Inversion, control: Control, positive: list, negative: list) -> None:
    """Raises `ValueError` when the control does not fit the model, the inversion or the prompts."""
    check_one_prompt(positive, "positive", "attention control")
    if not same_text(positive, control.target_conditioning):
        raise ValueError(
            'positive is not the target prompt of the attention control: connect the "positive" output of EI2 '
            "Attention Control."
        )
    if any("area" in options or options.get("set_area_to_bounds") for _, options in negative):
        raise ValueError(
            "negative is held to a part of the picture, so that the host would run the prompt in parts, which "
            "attention control cannot follow: give one for the whole picture."
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


def _pooled(conditioning: list) -> dict:
    """What belongs to the text itself among the options of a prompt."""
    return {key: value for key, value in conditioning[0][1].items() if key == "pooled_output"}


def _after_step(
    controlled: ControlledUNet, steps: int, kept: KeptOutside | None
) -> Callable[[int, torch.Tensor], torch.Tensor]:
    """What happens to source and target `(2 f) c h w` behind each step: LocalBlend and the mask, if asked for."""
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
