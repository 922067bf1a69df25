"""The node that inverts a clip to noise."""

from __future__ import annotations

from dataclasses import asdict, replace

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..ei2.ddim import ddim_timesteps
from ..ei2.null_text import NullTextSettings
from ..host.inputs import check_conditioning, check_frames, check_whole, clip_latents
from ..host.inversion_cache import cached_inversion
from ..host.newer import ADVANCED, check_static_clone, searchable
from ..host.null_text import check_null_text, inverted_for_guidance, scheduled_negative
from ..host.sampling import inverted_clip
from ..host.ui import shown, warn
from ..host.unet import latent_scale

NO_NEGATIVE = 'The "negative" output of EI2 Invert is empty: switch null_text on, or connect an empty prompt.'
MANY, NOISY = 100, 900  # the grid's timesteps are whole numbers apart: 10 to 100 steps always end above 900
ONE_STEP = "With 1 step the clip gets hardly any noise, so no edit can change anything: set steps to 12 or more."


class Invert(io.ComfyNode):
    """DDIM inversion, and null-text optimisation if switched on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EI2_Invert",
            display_name="EI2 Invert (DDIM Inversion)",
            category="EI2",
            description="Finds the noise from which the tuned model generates this clip. Sampling from it with "
            "another prompt keeps the motion.",
            **searchable(
                "ddim, inversion, null text, null-text optimization, unsample, reverse sampling",
                has_intermediate_output=True,
            ),
            inputs=[
                io.Model.Input("model", tooltip="The tuned model from EI2 One-Shot Tune."),
                io.Latent.Input("latent", tooltip="The same clip that was used for tuning."),
                io.Conditioning.Input(
                    "positive", tooltip="The source prompt, or an empty one as in Tune-A-Video. Guidance is off here."
                ),
                io.Int.Input(
                    "steps",
                    default=50,
                    min=1,
                    max=999,
                    tooltip="The number of steps; the edit uses the same: 50 for Stable Diffusion, 12 for the "
                    "miniature. More reconstruct more exactly. Use at most 100, or a divisor of 1000: other numbers "
                    "can leave out the noisiest timesteps.",
                ),
                io.Int.Input(
                    "refine",
                    default=0,
                    min=0,
                    max=10,
                    tooltip="Extra passes per step for a more exact inversion. Each costs as much as the step itself. "
                    "Try 1 or 2 when the reconstruction differs from the clip.",
                ),
                io.Boolean.Input(
                    "null_text",
                    default=False,
                    label_on="on",
                    label_off="off",
                    optional=True,
                    tooltip="Null-text optimisation: learns for every step a replacement for the empty prompt, so "
                    "that sampling with guidance still reproduces the clip. Needs empty. Slow: with 10 inner "
                    "steps, over twenty times as long as the inversion alone.",
                ),
                io.Int.Input(
                    "null_inner_steps",
                    default=NullTextSettings.inner_steps,
                    min=1,
                    max=100,
                    optional=True,
                    tooltip="For null_text: the maximum number of learning steps per sampling step. 10 in Video-P2P, "
                    "1 in Vid2Vid-zero. More come closer to the clip and take longer. With few steps, such as "
                    "12, try 20.",
                ),
                io.Float.Input(
                    "null_cfg",
                    default=NullTextSettings.guidance,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    optional=True,
                    tooltip="For null_text: the guidance to compensate for. Set it to the cfg of the edit; 7.5 in "
                    "Video-P2P and Vid2Vid-zero.",
                ),
                io.Conditioning.Input(
                    "null_source",
                    optional=True,
                    tooltip="For null_text: the prompt that guidance leads to, which describes the clip. If it is not "
                    "connected, positive is used. Vid2Vid-zero inverts with an empty positive and uses the "
                    "source prompt here.",
                ),
                io.Conditioning.Input(
                    "empty",
                    optional=True,
                    tooltip="For null_text: an empty prompt to start from. Use the same one as the edit's negative.",
                ),
                io.Boolean.Input(
                    "cache",
                    default=True,
                    label_on="on",
                    label_off="off",
                    optional=True,
                    **ADVANCED,
                    tooltip="Keeps the inversion on disk and reuses it when clip, model, prompts and all settings are "
                    "the same, even after a restart. The node shows what it did. EI2 Inversion Cache shows "
                    "how much is kept, and deletes it.",
                ),
                io.Boolean.Input(
                    "trajectory",
                    default=False,
                    label_on="on",
                    label_off="off",
                    optional=True,
                    tooltip="Keeps the latents of every step, which a mask in EI2 Edit Sample needs. Takes memory: 80 "
                    "MB for 24 frames of 512 x 512 pixels and 50 steps. It changes nothing else.",
                ),
            ],
            outputs=[
                io.Custom("EI2_INVERSION").Output(display_name="inversion", tooltip="For EI2 Edit Sample."),
                io.Latent.Output(
                    display_name="noise_latent",
                    tooltip="The same noise for SamplerCustom, KSampler (Advanced) and others, without added noise.",
                ),
                io.Sigmas.Output(
                    display_name="sigmas", tooltip="The noise levels that belong to it, for SamplerCustom."
                ),
                io.Conditioning.Output(
                    display_name="negative",
                    tooltip="What null_text learned, as a negative prompt for SamplerCustom, KSampler (Advanced) and "
                    "others. EI2 Edit Sample does not need it. Without null_text it is what is connected to "
                    "empty.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model,
        latent,
        positive,
        steps,
        refine,
        null_text=False,
        null_inner_steps=NullTextSettings.inner_steps,
        null_cfg=NullTextSettings.guidance,
        null_source=None,
        empty=None,
        cache=True,
        trajectory=False,
    ) -> io.NodeOutput:
        source = clip_latents(model, latent)
        check_conditioning(positive, source.shape[0], "positive")
        check_frames(model, source.shape[0], "the latent")
        parts = {"latent": source, "positive": positive, "steps": steps, "refine": refine, "trajectory": trajectory}
        if null_text:
            check_whole(model, source.shape[0], "null_text")
            settings = NullTextSettings(null_inner_steps, null_cfg)
            prompt = positive if null_source is None else null_source
            check_conditioning(prompt, source.shape[0], "null_source")
            check_null_text(prompt, empty, settings)
            check_static_clone(model)
            parts |= {"null_text": asdict(settings), "null_source": prompt, "empty": empty}
            compute = lambda: inverted_for_guidance(
                model, source, positive, steps, refine, trajectory, prompt, empty, settings
            )
        else:
            compute = lambda: inverted_clip(model, source, positive, steps, refine, trajectory)
        inversion, how = cached_inversion(model, parts, compute) if cache else (compute(), "computed, not kept")
        inversion = replace(inversion, latent_scale=latent_scale(model))
        if null_text:
            negative = scheduled_negative(model, empty, inversion)
        else:
            negative = ExecutionBlocker(NO_NEGATIVE) if empty is None else empty
        if advice := _advice(steps):
            how += f"\n{advice}"
            warn(advice)
        latent = {"samples": inversion.noise}
        return io.NodeOutput(inversion, latent, inversion.sigmas, negative, ui=shown(cls, text=how))


def _advice(steps: int) -> str:
    """What to say about a number of steps that suits no edit; empty for others."""
    last = int(ddim_timesteps(steps)[-1])
    if steps == 1:
        return ONE_STEP
    if steps > MANY and last < NOISY:
        return (
            f"{steps} steps end at timestep {last} of 1000, with little noise, so edits change little: set steps to "
            "50, 100, 200 or 250."
        )
    return ""
