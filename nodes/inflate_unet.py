"""The nodes that turn an image UNet into a video UNet: by a named preset, or option by option."""

from __future__ import annotations

from comfy_api.latest import io

from ..ei2.settings import CHOICES, PRESETS, InflationSettings
from .host.inflation import inflate

MODEL_TOOLTIP = "A Stable Diffusion 1.5, 2.x or XL model. It stays as it is: other nodes may go on using it."


class InflateUNet(io.ComfyNode):
    """Inflation by preset."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EI2_InflateUNet",
            display_name="EI2 Inflate UNet",
            category="EI2",
            description="Makes an image model see all frames of a video at once. Follow it with EI2 One-Shot Tune.",
            inputs=[
                io.Model.Input("model", tooltip=MODEL_TOOLTIP),
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default="EI2",
                    tooltip="How frames look at each other. EI2: the steady default. Tune-A-Video: the method it "
                    "improves on. Per-frame: every frame on its own, to see what the others are good for.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The inflated model, still untuned.")],
        )

    @classmethod
    def validate_inputs(cls, preset) -> bool | str:
        if preset is not None and preset not in PRESETS:
            return f"There is no preset {preset!r}: choose one of {', '.join(PRESETS)}."
        return True

    @classmethod
    def execute(cls, model, preset) -> io.NodeOutput:
        return io.NodeOutput(inflate(model, PRESETS[preset]))


class InflateUNetAdvanced(io.ComfyNode):
    """Inflation option by option."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        tooltips = {
            "spatial": "What a frame's self-attention sees. ffam: itself in full and all other frames coarsely (EI2). "
            "sca: the first and the previous frame (Tune-A-Video). first_frame: only the first. dense: all "
            "frames in full (slow). none: itself only.",
            "coarse_pool": "ffam: how other frames are made coarse. average: a cell's mean. stride: one token of it.",
            "temporal": "The attention over time. stam: EI2's, which keeps the features where the model expects "
            "them. attention: Tune-A-Video's, behind Layer Norm. none: no attention over time.",
            "centering": "stam: which mean is subtracted. frames: over time, so a still clip stays untouched. "
            "frames_space: over time and picture. channels: over channels, as Layer Norm does.",
            "normalization": "stam: limits how much the module can amplify. bounded: to at most 1. strict: to exactly "
            "1, so that even the untuned module changes the picture. off: no limit.",
            "normalization_scope": "stam: which projections are limited. qkvo: all. vo: only values and output.",
            "position": "Where the temporal module sits in each block. after_feed_forward: at its end. "
            "after_spatial: before the block reads the prompt.",
            "group_norm": "video: one brightness and contrast for the whole clip inside the model, which reduces "
            "flicker. frame: each frame for itself.",
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
            max=8,
            tooltip="ffam: other frames are shrunk by this factor. 1 sees them in full (slow), 4 is faster and looser.",
        )
        return io.Schema(
            node_id="EI2_InflateUNetAdvanced",
            display_name="EI2 Inflate UNet (Advanced)",
            category="EI2/advanced",
            description="Like EI2 Inflate UNet, with every choice of the method open. The defaults are the preset EI2.",
            inputs=[
                io.Model.Input("model", tooltip=MODEL_TOOLTIP),
                options.pop("spatial"),
                factor,
                *options.values(),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The inflated model, still untuned.")],
        )

    @classmethod
    def execute(cls, model, **options) -> io.NodeOutput:
        return io.NodeOutput(inflate(model, InflationSettings(**options)))
