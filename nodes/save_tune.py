"""The node that saves what one-shot tuning learned."""

from __future__ import annotations

from comfy_api.latest import io

from ..ei2.tensor_file import NotWritten
from ..ei2.tune_file import save_new_tune
from ..ei2.wording import file_size
from ..host.folders import check_prefix, new_tune_paths, short_path
from ..host.newer import searchable
from ..host.ui import shown


class SaveTune(io.ComfyNode):
    """Saves a tune to a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EI2_SaveTune",
            display_name="EI2 Save Tune",
            category="EI2",
            description="Saves what EI2 One-Shot Tune learned in ComfyUI's models/ei2_tunes. To reuse it another day: "
            "EI2 Load Tune, then EI2 Apply Tune.",
            **searchable("save motion, export tune, tune-a-video"),
            inputs=[
                io.Custom("EI2_TUNE").Input("tune", tooltip="From EI2 One-Shot Tune."),
                io.String.Input(
                    "filename_prefix",
                    default="tune",
                    tooltip="The start of the file name; a number is added, so nothing is overwritten. A / makes "
                    "subfolders; %year%, %month% and %day% become the date.",
                ),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="What the clip shows, best the source prompt. It is stored in the file and shown by EI2 "
                    "Load Tune.",
                ),
            ],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, filename_prefix) -> None:
        """None: the prefix comes from another node."""
        if filename_prefix is not None:
            check_prefix(filename_prefix)

    @classmethod
    def execute(cls, tune, filename_prefix, prompt="") -> io.NodeOutput:
        try:
            path = save_new_tune(new_tune_paths(filename_prefix), tune, prompt)
        except NotWritten as error:
            raise NotWritten(f"{error} Do this before you run another workflow: it would drop the tune.") from error
        text = f"{short_path(path)}\n{file_size(path.stat().st_size)}"  # on a line of its own it is never broken
        return io.NodeOutput(ui=shown(cls, text=text))
