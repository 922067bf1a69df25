"""The node that samples the inverted clip with a new prompt."""

from __future__ import annotations

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..ei2.masks import kept_outside
from ..host.controlled_sampling import sample_controlled
from ..host.graph import warn_of_words
from ..host.inflation import require_inflation
from ..host.inputs import check_sampling, clip_latents
from ..host.newer import searchable
from ..host.null_text import scheduled_negative
from ..host.sampling import sample
from ..host.ui import drawn, show_text
from .pictures.attention_maps import draw_maps
from .pictures.fonts import font_advice


class EditSample(io.ComfyNode):
    """Sampling of the edit."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EI2_EditSample",
            display_name="EI2 Edit Sample (Vid2Vid)",
            category="EI2",
            description="Generates the edit: samples the inverted noise with a new prompt.",
            **searchable(
                "vid2vid, video to video, edit video, video editing, restyle, style transfer, "
                "replace object, temporal consistency, tune-a-video"
            ),
            inputs=[
                io.Model.Input("model", tooltip="The same tuned model that made the inversion."),
                io.Custom("EI2_INVERSION").Input("inversion", tooltip="From EI2 Invert."),
                io.Conditioning.Input(
                    "positive", tooltip="What the edited clip shows: the source prompt with a few words changed."
                ),
                io.Conditioning.Input("negative", tooltip="What to avoid; usually an empty prompt."),
                io.Float.Input(
                    "cfg",
                    default=7.5,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="How strongly the prompt acts. 1 with the source prompt reproduces the clip; 7.5 to 12.5 "
                    "edits (with the miniature 4). Too high burns colours.",
                ),
                io.Custom("EI2_CONTROL").Input(
                    "control",
                    optional=True,
                    tooltip="From EI2 Attention Control: keeps where and how things are, changes what they are. The "
                    "source is then sampled alongside the edit, which takes up to twice as long.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="White where the edit may change the clip, at the clip's size; one mask for all frames or "
                    "one per frame. Grey allows a partial change. Black comes back exactly as it was encoded, "
                    "at any cfg; VAE Decode then blurs a few pixels across the edge. To keep the clip's own "
                    "pixels outside, combine edit and clip with this mask in ImageCompositeMasked after VAE "
                    "Decode. Needs trajectory on in EI2 Invert. With LocalBlend, only what both allow "
                    "changes.",
                ),
                io.Float.Input(
                    "guidance_end",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    optional=True,
                    tooltip="cfg acts in this share of the steps, counted from the first. The rest run with the prompt "
                    "alone, in half the time. Leave it at 1 with null_text.",
                ),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="The edited clip, for VAE Decode."),
                io.Latent.Output(
                    display_name="source_latent",
                    tooltip="Only with control: the source clip as the same run reconstructs it. Its errors also "
                    "appear in the edit.",
                ),
                io.Image.Output(
                    display_name="attention_maps",
                    tooltip="Only with control: where in each frame the edit attends to each word of its prompt. A "
                    "word changes the places it attends to.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, model, inversion, positive, negative, cfg, control=None, mask=None, guidance_end=1.0
    ) -> io.NodeOutput:
        require_inflation(model)
        noise = clip_latents(model, {"samples": inversion.noise})
        check_sampling(model, inversion, positive, negative)
        kept = None if mask is None else kept_outside(mask, inversion)
        if cfg != 1:  # cfg 1 is usually a reconstruction
            warn_of_words(model, "positive", "edit")
        if control is None:
            if inversion.unconditional is not None:
                negative = scheduled_negative(model, negative, inversion, positive=positive)
            edited = sample(model, noise, positive, negative, cfg, inversion.sigmas, kept, guidance_end)
            nothing = ExecutionBlocker("Connect an EI2 Attention Control to EI2 Edit Sample for this output.")
            return io.NodeOutput({"samples": edited}, nothing, nothing)
        edit = sample_controlled(model, noise, inversion, control, positive, negative, cfg, kept, guidance_end)
        maps = drawn(lambda: draw_maps(edit.maps, list(control.target.texts)))
        advice = font_advice(list(control.target.texts))
        if advice:
            show_text(advice)
        return io.NodeOutput({"samples": edit.target}, {"samples": edit.source}, maps)
