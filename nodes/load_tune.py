"""The node that loads a saved tune."""

from __future__ import annotations

from comfy_api.latest import io

from ..ei2.tune_file import check_tune, load_tune
from ..host.folders import list_tunes, resolve_tune, state_of_file
from ..host.newer import searchable
from ..host.ui import decode_picture, plain, shown


class LoadTune(io.ComfyNode):
    """Loads a tune from a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EI2_LoadTune",
            display_name="EI2 Load Tune",
            category="EI2",
            description="Loads a tune that EI2 Save Tune saved, for EI2 Apply Tune: the clip does not have to be "
            "learned again. Shows a rough picture of the clip.",
            **searchable("load motion, import tune, tune-a-video", has_intermediate_output=True),
            inputs=[
                io.Combo.Input(
                    "tune_name",
                    options=list_tunes(),
                    tooltip="A file in ComfyUI's models/ei2_tunes. Press R to find new ones.",
                )
            ],
            outputs=[
                io.Custom("EI2_TUNE").Output(display_name="tune", tooltip="For EI2 Apply Tune."),
                io.String.Output(
                    display_name="info",
                    tooltip="How it was made: inflation, clip, training, model, prompt. The node shows it too.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, tune_name) -> None:
        """Reports a wrong file before anything runs. None: the name comes from another node."""
        if tune_name is not None:
            check_tune(resolve_tune(tune_name))

    @classmethod
    def fingerprint_inputs(cls, tune_name) -> str | float:
        """Changes when the file changes."""
        return state_of_file(tune_name, resolve_tune)

    @classmethod
    def execute(cls, tune_name) -> io.NodeOutput:
        saved = load_tune(resolve_tune(tune_name))
        info = plain(saved.describe())
        picture = decode_picture(saved.tune.picture) if saved.tune.picture else None
        return io.NodeOutput(saved.tune, info, ui=shown(cls, picture, info))
