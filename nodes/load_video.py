"""The node that loads a clip: frames at the size to edit, their rate, and the sound of the same span."""

from __future__ import annotations

from comfy_api.latest import io
from PIL import ImageColor

from ..ei2 import PIXELS_PER_LATENT
from ..ei2.video import FITS, read_audio, read_frames
from ..host.folders import list_input_videos, resolve_input, state_of_file
from ..host.memory import free_ram
from ..host.newer import searchable
from ..host.ui import progress, shown, warn

LARGEST_SIZE = 16384  # pixels, the host's own limit for images
MOST_FRAMES = 1_000_000
MOST_RATE = 1000.0  # frames per second


class LoadVideo(io.ComfyNode):
    """Reads a span of a video file from the input folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EI2_LoadVideo",
            display_name="EI2 Load Video",
            category="EI2",
            description="Loads the frames and the sound of part of a video, scaled to the size to edit. Only the "
            "chosen frames take memory, however long the video is.",
            **searchable("import video, video to frames, extract frames, trim video, video clip"),
            inputs=[
                io.Combo.Input(
                    "video",
                    options=list_input_videos(),
                    upload=io.UploadType.video,
                    tooltip="The video to edit. Upload one, or choose a file from ComfyUI's input folder.",
                ),
                io.Int.Input(
                    "width",
                    default=512,
                    min=0,
                    max=LARGEST_SIZE,
                    step=PIXELS_PER_LATENT,
                    tooltip="Width of the frames in pixels, a multiple of 8. 0: follow height and the video's shape. "
                    "If both are 0: the video's own size, with its edges cut to a multiple of 8. Use the size "
                    "the model was made for: 512 for SD 1.5, 768 for SD 2, 1024 for SDXL, 128 for the bundled "
                    "miniature.",
                ),
                io.Int.Input(
                    "height",
                    default=512,
                    min=0,
                    max=LARGEST_SIZE,
                    step=PIXELS_PER_LATENT,
                    tooltip="Height of the frames in pixels, a multiple of 8. 0: follow width and the video's shape. "
                    "If both are 0: the video's own size, with its edges cut to a multiple of 8.",
                ),
                io.Combo.Input(
                    "fit",
                    options=list(FITS),
                    default=FITS[0],
                    tooltip="What to do when the video's shape differs from width x height. crop: fill the frame and "
                    "cut off the rest. pad: show everything between black bars (transparent if the frame has "
                    "transparent parts). stretch: show everything, distorted.",
                ),
                io.Int.Input(
                    "start_frame",
                    default=0,
                    min=0,
                    max=MOST_FRAMES,
                    tooltip="The first frame to load, counted from 0. At 24 frames per second, 48 starts "
                    "two seconds into the video.",
                ),
                io.Int.Input(
                    "frame_stride",
                    default=1,
                    min=1,
                    max=1000,
                    tooltip="Load every n-th frame: 1 = every frame, 2 = every second one. Higher values cover more "
                    "time with the same number of frames. fps is lowered to match, so the clip still plays at "
                    "its natural speed.",
                ),
                io.Int.Input(
                    "max_frames",
                    default=24,
                    min=0,
                    max=MOST_FRAMES,
                    tooltip="The maximum number of frames to load; 0 = up to the end of the video. Time and memory "
                    "for tuning and editing grow with it. Start with 8 to 24.",
                ),
                # Sockets, not widgets: the editor's upload button is the last widget, and
                # workflows save widget values by position.
                io.Float.Input(
                    "frame_rate",
                    default=0.0,
                    min=0.0,
                    max=MOST_RATE,
                    step=0.01,
                    optional=True,
                    tooltip="Frames per second before frame_stride; 0 = the video's own. Videos with a variable rate "
                    "(phones, screen recorders) are made even, at their usual rate or this one. During a "
                    "pause, a frame is repeated.",
                    force_input=True,
                ),
                io.String.Input(
                    "background",
                    default="#000000",
                    optional=True,
                    tooltip="The colour under the transparent parts of a video: #rrggbb, or a name such as white.",
                    force_input=True,
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The frames, in order."),
                io.Float.Output(display_name="fps", tooltip="Frames per second of the loaded frames."),
                io.Int.Output(display_name="frame_count", tooltip="How many frames were loaded."),
                io.Audio.Output(display_name="audio", tooltip="The sound of the same part; empty if there is none."),
                io.Mask.Output(
                    display_name="mask",
                    tooltip="The transparent parts of the frames, as in ComfyUI's Load Image: 1 where the video is "
                    "transparent, 0 where it is opaque.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, video) -> None:
        """Reports a wrong file before anything runs. None: the name comes from another node. The other inputs are left
        to `execute`, because the host repeats the message for every argument here."""
        if video is not None:
            resolve_input(video)

    @classmethod
    def fingerprint_inputs(cls, video, **others) -> str | float:
        """Changes when the file changes, so a replaced file is read again."""
        return state_of_file(video, resolve_input)

    @classmethod
    def execute(
        cls, video, width, height, fit, start_frame, frame_stride, max_frames, frame_rate=0.0, background="#000000"
    ) -> io.NodeOutput:
        path, colour = resolve_input(video), parse_colour(background)
        advance, total = progress(), 1

        def on_frame(done: int, expected: int) -> None:
            nonlocal total
            total = expected + 1  # the last step is for the sound
            advance(done, total)

        clip = read_frames(
            path, start_frame, frame_stride, max_frames, width, height, fit, on_frame, free_ram(), frame_rate, colour
        )
        warnings = list(clip.warnings)
        audio = read_audio(
            path,
            clip.start_seconds,
            clip.end_seconds - clip.start_seconds,
            clip.starts,
            warnings.append,
            lambda share: advance(total - 1, total),
        )
        advance(total, total)
        for warning in warnings:
            warn(f"Load Video: {warning}")
        return io.NodeOutput(
            clip.images, clip.fps, clip.frame_count, audio, clip.mask, ui=shown(cls, text="\n".join(warnings))
        )


def parse_colour(text: str) -> tuple[int, int, int]:
    """R, G, B in 0..255 of a colour in CSS notation. Raises ValueError."""
    try:
        colour = ImageColor.getrgb(text.strip())[:3]
        if max(colour) > 255:  # Pillow takes rgb(300, 0, 0)
            raise ValueError("too bright")
        return colour
    except ValueError as error:
        raise ValueError(f"background is '{text[:40]}', but must be a colour such as #00ff00 or white.") from error
