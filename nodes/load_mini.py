"""The node that loads the bundled miniature of Stable Diffusion."""

from __future__ import annotations

from comfy_api.latest import io

from ..host.miniature import load_miniature
from ..host.newer import searchable
from ..host.ui import shown

OWN_WORLD = "This model knows only drawn shapes on patterns. For a real film load a Stable Diffusion checkpoint."


class LoadMini(io.ComfyNode):
    """The bundled model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EI2_LoadMini",
            display_name="EI2 Load Miniature Model",
            category="EI2",
            description="A tiny Stable Diffusion that comes with the pack, for trying everything in minutes on a CPU. "
            'It draws only one kind of picture, at 128 x 128 pixels: "a red circle on a striped blue '
            'background".',
            **searchable("demo model, tiny model, test model"),
            inputs=[],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The UNet."),
                io.Clip.Output(display_name="clip", tooltip="The text encoder."),
                io.Vae.Output(display_name="vae", tooltip="The autoencoder."),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(*load_miniature(), ui=shown(cls, text=OWN_WORLD))
