"""The node that turns a clip into the noise it comes from."""

from __future__ import annotations

from comfy_api.latest import io

from .host.checks import check_conditioning, check_frames, clip_latents
from .host.sampling import invert
from .inversion import Inversion


class Invert(io.ComfyNode):
    """DDIM inversion."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EI2_Invert",
            display_name="EI2 Invert",
            category="EI2",
            description="Finds the noise from which the tuned model makes this very clip. Sampling from it with "
            "another prompt keeps the motion.",
            inputs=[
                io.Model.Input("model", tooltip="The tuned model from EI2 One-Shot Tune."),
                io.Latent.Input("latent", tooltip="The same clip that was tuned on."),
                io.Conditioning.Input(
                    "positive", tooltip="The source prompt, or an empty one as in Tune-A-Video; guidance is off here."
                ),
                io.Int.Input(
                    "steps",
                    default=50,
                    min=1,
                    max=999,
                    tooltip="Steps of the inversion; the edit takes the same. More steps reconstruct more exactly.",
                ),
                io.Int.Input(
                    "refine",
                    default=0,
                    min=0,
                    max=10,
                    tooltip="Extra passes per step that make the inversion more exact; each costs as much as the "
                    "step itself. Try 1 or 2 when the reconstruction differs from the clip.",
                ),
            ],
            outputs=[
                io.Custom("EI2_INVERSION").Output(display_name="inversion", tooltip="For EI2 Edit Sample."),
                io.Latent.Output(
                    display_name="noise_latent",
                    tooltip="The same noise for SamplerCustom, KSampler (Advanced) and others, without added noise.",
                ),
                io.Sigmas.Output(display_name="sigmas", tooltip="The noise levels belonging to it, for SamplerCustom."),
            ],
        )

    @classmethod
    def execute(cls, model, latent, positive, steps, refine) -> io.NodeOutput:
        source = clip_latents(model, latent)
        check_conditioning(positive, source.shape[0], "positive")
        check_frames(model, source.shape[0], "the latent")
        noise, sigmas = invert(model, source, positive, steps, refine)
        return io.NodeOutput(Inversion(noise, source, sigmas), {"samples": noise}, sigmas)
