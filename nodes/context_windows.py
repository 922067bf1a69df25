"""The node that inverts and edits clips too long to process at once."""

from __future__ import annotations

from comfy_api.latest import io

from ..host.inflation import require_inflation
from ..host.newer import searchable
from ..host.windows import with_windows


class ContextWindows(io.ComfyNode):
    """Context windows for an inflated model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EI2_ContextWindows",
            display_name="EI2 Context Windows (long clips)",
            category="EI2",
            description="Inverts and edits a long clip in windows. The model sees context_length frames at a time, "
            "and with spatial ffam the windows share coarse tokens of the whole clip. Memory then does not grow with "
            "the clip.",
            **searchable("long clip, long video, context length, sliding window"),
            inputs=[
                io.Model.Input("model", tooltip="An inflated model, usually from EI2 One-Shot Tune."),
                io.Int.Input(
                    "context_length",
                    default=16,
                    min=2,
                    max=10_000,
                    tooltip="The number of frames the model sees at a time. Use the value of window_frames in EI2 "
                    "One-Shot Tune. Clips up to this length are not split.",
                ),
                io.Int.Input(
                    "context_overlap",
                    default=4,
                    min=0,
                    max=9_999,
                    tooltip="The number of frames that neighbouring windows share. Their results are blended there. A "
                    "quarter of context_length works well; more is smoother and slower.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model with windows, for EI2 Invert and the edit.")
            ],
        )

    @classmethod
    def execute(cls, model, context_length, context_overlap) -> io.NodeOutput:
        require_inflation(model)
        return io.NodeOutput(with_windows(model, context_length, context_overlap))
