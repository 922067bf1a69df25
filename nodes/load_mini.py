"""The node that loads the bundled miniature of Stable Diffusion."""

from __future__ import annotations

from comfy_api.latest import io

from ..host.miniature import load_miniature
from ..host.newer import searchable
from ..host.ui import shown

OWN_WORLD = "It knows only drawn things in drawn places; a real film needs a Stable Diffusion checkpoint."


class LoadMini(io.ComfyNode):
    """The bundled model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EI2_LoadMini",
            display_name="EI2 Load Miniature Model",
            category="EI2",
            description="A tiny Stable Diffusion that comes with the pack, for trying everything in minutes on a CPU. "
            "It draws 24 things and six shapes, in seven places or on plain and patterned backgrounds, at 128 x 128 "
            'pixels: "a cat in a meadow", "a blue car on a beach". Its help page lists all its words.',
            **searchable("demo model, tiny model, test model"),
            inputs=[],
            outputs=[
                io.Model.Output(display_name="model", tooltip="For EI2 Inflate UNet."),
                io.Clip.Output(display_name="clip", tooltip="For CLIP Text Encode and EI2 Attention Control."),
                io.Vae.Output(
                    display_name="vae", tooltip="For VAE Encode and VAE Decode; use no other VAE with this model."
                ),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(*load_miniature(), ui=shown(cls, text=OWN_WORLD))
