"""The node that applies a tune to a model."""

from __future__ import annotations

from comfy_api.latest import io

from ..ei2.model_identity import check_base
from ..host.identity import identify
from ..host.inflation import apply_tune, inflate, inflation_of
from ..host.newer import searchable
from ..host.ui import shown, warn


class ApplyTune(io.ComfyNode):
    """Applies a tune to a model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        strength = {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.01}
        return io.Schema(
            node_id="EI2_ApplyTune",
            display_name="EI2 Apply Tune",
            category="EI2",
            description="Applies a tune to a model, replacing any earlier tune. The result is the model that EI2 "
            "One-Shot Tune made, or a weaker version of it.",
            **searchable("apply motion, motion strength, tune-a-video", has_intermediate_output=True),
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The model that was tuned, straight from its loader: the node inflates it as the tune "
                    "requires. A model that is already inflated must be inflated in the same way.",
                ),
                io.Custom("EI2_TUNE").Input("tune", tooltip="From EI2 Load Tune or EI2 One-Shot Tune."),
                io.Float.Input(
                    "temporal_strength",
                    **strength,
                    tooltip="How much of the learned temporal attention to use. Lower it when the edit copies the "
                    "source's motion where it should not. At 0 there is none, and frames drift apart.",
                ),
                io.Float.Input(
                    "query_strength",
                    **strength,
                    tooltip="How much of the tuned queries of the model's own attention to use. Lower it, for "
                    "instance to 0.5, when the source comes back whatever the new prompt says. 0 uses the "
                    "model's own queries.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The tuned model, for EI2 Invert and EI2 Edit Sample.")
            ],
        )

    @classmethod
    def execute(cls, model, tune, temporal_strength, query_strength) -> io.NodeOutput:
        warning = check_base(tune.base, identify(model)) if tune.base else ""
        if warning:
            warn(warning)
        inflated = model if inflation_of(model) else inflate(model, tune.settings)
        tuned = apply_tune(inflated, tune.scaled(temporal_strength, query_strength))
        text = warning or f"tuned on {tune.frames} frames, {len(tune.losses)} steps"
        return io.NodeOutput(tuned, ui=shown(cls, text=text))
