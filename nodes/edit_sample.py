"""The node that samples the inverted clip with a new prompt."""

from __future__ import annotations

from comfy_api.latest import io

from .host.checks import check_conditioning, check_frames, clip_latents
from .host.inflation import require_inflation
from .host.sampling import sample


class EditSample(io.ComfyNode):
    """Sampling of the edit."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EI2_EditSample",
            display_name="EI2 Edit Sample",
            category="EI2",
            description="Makes the edited clip: the inverted noise, sampled with a new prompt.",
            inputs=[
                io.Model.Input("model", tooltip="The same tuned model that made the inversion."),
                io.Custom("EI2_INVERSION").Input("inversion", tooltip="From EI2 Invert."),
                io.Conditioning.Input(
                    "positive", tooltip="What the edited clip shows: the source prompt with other words."
                ),
                io.Conditioning.Input("negative", tooltip="What to avoid; usually an empty prompt."),
                io.Float.Input(
                    "cfg",
                    default=7.5,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="How strongly the prompt rules. 1 with the source prompt gives the clip back; 7.5 to 12.5 "
                    "edits. Too high burns colours.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The edited clip, for VAE Decode.")],
        )

    @classmethod
    def execute(cls, model, inversion, positive, negative, cfg) -> io.NodeOutput:
        require_inflation(model)
        noise = clip_latents(model, {"samples": inversion.noise})
        check_conditioning(positive, inversion.frames, "positive")
        check_conditioning(negative, inversion.frames, "negative")
        check_frames(model, inversion.frames, "the inversion")
        return io.NodeOutput({"samples": sample(model, noise, positive, negative, cfg, inversion.sigmas)})
