"""The nodes that turn an image UNet into a video UNet: by preset, or option by option."""

from __future__ import annotations

from comfy_api.latest import io

from ..ei2.settings import CHOICES, COARSEST, PRESETS, InflationSettings
from ..ei2.user_text import short
from ..host.inflation import inflate
from ..host.newer import searchable

MODEL_TOOLTIP = "A Stable Diffusion 1.5, 2.x or XL model. It is not changed, so other nodes can still use it."

PRESET_TOOLTIP = (
    "How frames attend to each other. EI2: the default, steady. Tune-A-Video: the method EI2 improves on; its own "
    "defaults are an empty prompt for EI2 Invert and cfg 12.5 for EI2 Edit Sample. Video-P2P: every frame attends to "
    "the first one. Tune it, invert with the source prompt and null_text on (null_inner_steps 10), edit with EI2 "
    "Attention Control (cross_replace 0.2, self_replace 0.5, decoupled) and cfg 7.5. Vid2Vid-zero: never tuned. "
    "Invert through a second EI2 Inflate UNet (Advanced) with spatial and temporal none, an empty prompt, null_text "
    "on (null_inner_steps 1) and the source prompt as null_source; edit with EI2 Attention Control (cross_replace "
    "0.8, or 0.4 if the report says refine, self_replace 0, late) and cfg 7.5. Video-P2P and Vid2Vid-zero have a "
    "workflow each. Per-frame: every frame on its own, as a baseline."
)


class InflateUNet(io.ComfyNode):
    """Inflation by preset."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EI2_InflateUNet",
            display_name="EI2 Inflate UNet",
            category="EI2",
            description="Lets an image model see all frames of a video at once. EI2 One-Shot Tune comes next.",
            **searchable(
                "tune-a-video, video-p2p, vid2vid-zero, temporal attention, temporal consistency, "
                "image model to video model"
            ),
            inputs=[
                io.Model.Input("model", tooltip=MODEL_TOOLTIP),
                io.Combo.Input("preset", options=list(PRESETS), default="EI2", tooltip=PRESET_TOOLTIP),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The inflated model, not tuned yet.")],
        )

    @classmethod
    def validate_inputs(cls, preset) -> None:
        if preset is not None and preset not in PRESETS:
            raise ValueError(f"There is no preset {short(preset)}: choose one of {', '.join(PRESETS)}.")

    @classmethod
    def execute(cls, model, preset) -> io.NodeOutput:
        return io.NodeOutput(inflate(model, PRESETS[preset]))


class InflateUNetAdvanced(io.ComfyNode):
    """Inflation option by option."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        tooltips = {
            "spatial": "What a frame's self-attention sees. ffam: itself in full and all other frames coarsely (EI2). "
            "sca: the first and the previous frame (Tune-A-Video). first_frame: only the first "
            "(Video-P2P). dense: all frames in full (slow). dense_sca: dense in three layers (the first "
            "one going down, the first one going up, the middle), sca in the others (Vid2Vid-zero). none: "
            "itself only.",
            "coarse_pool": "Only with spatial ffam and coarse_factor 2 or more; otherwise leave it at average. How "
            "other frames are downsampled. average: the mean of a cell. stride: one token of it.",
            "temporal": "The attention over time. stam: EI2's, which keeps the features where the model expects them; "
            "the next three options belong to it. attention: Tune-A-Video's, after a Layer Norm. none: no "
            "attention over time.",
            "centering": "Only with temporal stam; otherwise leave it at frames. Which mean is subtracted. frames: "
            "over time, so a still clip is left unchanged. frames_space: over time and space. channels: "
            "over channels. layer_norm: Layer Norm instead, which also scales; for comparison.",
            "normalization": "Only with temporal stam; otherwise leave it at bounded. Limits how much the module can "
            "amplify. bounded: to at most 1. strict: to exactly 1, so even the untuned module "
            "changes the picture. off: no limit.",
            "normalization_scope": "Only with temporal stam and normalization bounded or strict; otherwise leave it "
            "at qkvo. Which projections are limited. qkvo: all. vo: only values and output.",
            "position": "Only with temporal stam or attention; otherwise leave it at after_feed_forward. Where the "
            "temporal module sits in each block. after_feed_forward: at its end. after_spatial: before "
            "the block reads the prompt.",
            "group_norm": "What is normalized together. frame: each frame by itself, as in the image model's "
            "training. video: all frames together, as in Tune-A-Video and its successors.",
        }
        options = {
            name: io.Combo.Input(
                name, options=list(choices), default=getattr(InflationSettings, name), tooltip=tooltips[name]
            )
            for name, choices in CHOICES.items()
        }
        factor = io.Int.Input(
            "coarse_factor",
            default=InflationSettings.coarse_factor,
            min=1,
            max=COARSEST,
            tooltip="Only with spatial ffam; otherwise leave it at 2. Other frames are downsampled by this factor: 1 "
            "sees them in full (slow), 4 is faster and less precise.",
        )
        return io.Schema(
            node_id="EI2_InflateUNetAdvanced",
            display_name="EI2 Inflate UNet (Advanced)",
            category="EI2/advanced",
            description="Like EI2 Inflate UNet, with every choice of the method exposed. The defaults are the preset "
            "EI2. An option that has no effect because of another one is refused.",
            **searchable("tune-a-video, video-p2p, vid2vid-zero, temporal attention, stam, ffam"),
            inputs=[io.Model.Input("model", tooltip=MODEL_TOOLTIP), options.pop("spatial"), factor, *options.values()],
            outputs=[io.Model.Output(display_name="model", tooltip="The inflated model, not tuned yet.")],
        )

    @classmethod
    def execute(cls, model, **options) -> io.NodeOutput:
        return io.NodeOutput(inflate(model, InflationSettings(**options)))
