"""The node that combines several videos into one."""

from __future__ import annotations

from comfy_api.latest import io

from ..host.inputs import check_video
from ..host.newer import searchable
from ..host.ui import progress, shown
from .pictures.fonts import font_advice
from .pictures.layouts import check_wipe, contact_sheet, fitted, grid, side_by_side, wipe

LAYOUTS = {"side by side": side_by_side, "grid": grid, "wipe": wipe}
MOST_VIDEOS = 6
LABELS = "source\nedit"
LONGEST_LABEL = 200  # characters: more do not fit into any picture


class Compare(io.ComfyNode):
    """Comparison of videos."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        videos = [
            io.Image.Input(
                f"video_{i}",
                optional=i > 1,
                tooltip="The frames of the first video, usually the source; the others are scaled to its size."
                if i == 1
                else "Another video's frames; optional. A video of a different size is scaled to fit the first one, "
                "with bars if its shape differs. The shortest video sets the number of frames.",
            )
            for i in range(1, MOST_VIDEOS + 1)
        ]
        return io.Schema(
            node_id="EI2_Compare",
            display_name="EI2 Compare (Side by Side)",
            category="EI2",
            description="Combines several videos into one, frame by frame, with labels: side by side, as a grid or as "
            "a wipe. Save it with Create Video and Save Video at the source's fps.",
            **searchable("side by side, contact sheet, grid, wipe, before after, comparison"),
            inputs=[
                *videos,
                io.String.Input(
                    "labels",
                    multiline=True,
                    default=LABELS,
                    tooltip="The label above each video, one per line, in the order of the inputs. An empty line "
                    'leaves a video without a label. Missing lines become "video 3" and so on. Empty: no '
                    "labels.",
                ),
                io.Combo.Input(
                    "layout",
                    options=list(LAYOUTS),
                    default="side by side",
                    tooltip="side by side: one row. grid: rows and columns. wipe: one picture, in which a line sweeps "
                    "from left to right over the clip and uncovers the second video, then the third, and so on.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The comparison's frames, for Create Video."),
                io.Image.Output(
                    display_name="contact_sheet",
                    tooltip="One picture with one row per video and up to eight evenly spaced frames of each.",
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, labels, layout, **videos) -> io.NodeOutput:
        names = [f"video_{i}" for i in range(1, MOST_VIDEOS + 1)]
        clips = {name: check_video(videos[name], name) for name in names if videos.get(name) is not None}
        if not clips:
            raise ValueError("There is no video: connect at least one.")
        frames = min(map(len, clips.values()))
        if layout == "wipe":
            check_wipe(len(clips), frames)
        texts = [label_of(labels, names.index(name)) for name in clips]
        height, width = next(iter(clips.values())).shape[1:3]
        fitting = [fitted(clip[:frames], height, width) for clip in clips.values()]
        advance = progress(frames * (1 if layout == "wipe" else len(clips)))
        images = LAYOUTS[layout](fitting, texts, advance)
        sheet = contact_sheet(fitting, texts)
        return io.NodeOutput(images, sheet, ui=shown(cls, sheet, font_advice(texts)))


def label_of(labels: str, number: int) -> str:
    """The label of a video, counted from 0; empty if there are no labels at all."""
    if not labels.strip():
        return ""
    lines = labels.removesuffix("\n").split("\n")
    return " ".join(lines[number].split())[:LONGEST_LABEL] if number < len(lines) else f"video {number + 1}"
