"""The node that carries one edited frame through the clip."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from comfy_api.latest import io

from ..ei2 import PIXELS_PER_LATENT
from ..ei2.carried_edit import Unsuitable, carried_edit, listed
from ..ei2.inverted_clip import Inversion
from ..ei2.key_frame import Carried
from ..ei2.masks import frame_masks
from ..host.graph import warn_of_words
from ..host.inflation import require_inflation
from ..host.inputs import check_sampling, check_video, clip_latents
from ..host.key_frame import best_frame, decoded, encoded, sample_again
from ..host.newer import ADVANCED, searchable
from ..host.null_text import scheduled_negative
from ..host.ui import progress, show_text


class CarryKeyFrame(io.ComfyNode):
    """One form of the edited object in all frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EI2_CarryKeyFrame",
            display_name="EI2 Carry Key Frame",
            category="EI2",
            description="Gives the edited object the same form in all frames: takes one frame of the edit, or a frame "
            "that you edited yourself, moves it as the object moves in the clip, and samples the last steps again.",
            **searchable("keyframe, consistent object, propagate edit, edit one frame, ebsynth, image to video edit"),
            inputs=[
                io.Model.Input("model", tooltip="The same tuned model that made the inversion and the edit."),
                io.Custom("EI2_INVERSION").Input("inversion", tooltip="From EI2 Invert."),
                io.Latent.Input("latent", tooltip="The edit, from EI2 Edit Sample."),
                io.Conditioning.Input("positive", tooltip="The prompt of the edit."),
                io.Conditioning.Input("negative", tooltip="The negative prompt of the edit."),
                io.Vae.Input("vae", tooltip="The VAE that encoded the clip."),
                io.Float.Input(
                    "cfg",
                    default=1.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="How strongly the prompt acts in the steps that are sampled again. 1 keeps the form of the "
                    "key frame best and takes half as long: what the object is was decided in the edit.",
                ),
                io.Float.Input(
                    "denoise",
                    default=0.3,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="The share of the steps that is sampled again. More removes seams and adapts light and "
                    "surroundings; less stays closer to the key frame. 0 only pastes the key frame.",
                ),
                io.Int.Input(
                    "key_frame_index",
                    default=-1,
                    min=-1,
                    max=100_000,
                    tooltip="Which frame to carry, counted from 0. -1 chooses: the frame of the edit that best shows "
                    "what the prompt says or, with key_frame, the frame that it was made from.",
                ),
                io.Image.Input(
                    "key_frame",
                    optional=True,
                    tooltip="One frame of the clip that you edited yourself, at the clip's size: in an image editor, "
                    "by inpainting, or with any other model. Without it, a frame of the edit is used. For a long clip, "
                    "connect several frames as a batch: each frame of the clip takes the nearest one.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="White where the object is, old and new. Only needed if the edit also changes what is "
                    "around it; otherwise the object is where the edit differs from the clip.",
                ),
                io.Boolean.Input(
                    "skip_unsuitable",
                    default=False,
                    optional=True,
                    **ADVANCED,
                    tooltip="For an edit that changes hardly anything, or nearly the whole picture, such as a new "
                    "style or place: there is no single object to carry. Off: this is an error. On: the edit is passed "
                    "on as it is, and the report says so.",
                ),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="latent", tooltip="The clip with one form of the object, for VAE Decode."
                ),
                io.Image.Output(
                    display_name="pasted", tooltip="The key frame pasted into all frames, before sampling again."
                ),
                io.String.Output(display_name="report", tooltip="Which frame was carried, and to how many frames."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model,
        inversion,
        latent,
        positive,
        negative,
        vae,
        cfg,
        denoise,
        key_frame_index,
        key_frame=None,
        mask=None,
        skip_unsuitable=False,
    ) -> io.NodeOutput:
        require_inflation(model)
        edit = clip_latents(model, latent)
        check_sampling(model, inversion, positive, negative)
        _check(edit, inversion, key_frame_index)
        height, width = (PIXELS_PER_LATENT * edge for edge in edit.shape[2:])
        allowed = None if mask is None else frame_masks(mask.cpu(), len(edit), height, width)
        drawn = None if key_frame is None else _pictures(vae, key_frame, height, width, key_frame_index)
        if cfg != 1:
            warn_of_words(model, "positive", "edit")
        if inversion.unconditional is not None:
            negative = scheduled_negative(model, negative, inversion, positive=positive)
        source, pictures = decoded(vae, inversion.source, "the clip"), decoded(vae, edit, "the edit")
        choose = lambda regions: best_frame(model, edit, _on_latents(regions, edit), positive, negative)
        try:
            advance = progress(2 * len(source) - 1)
            numbers, result = carried_edit(source, pictures, allowed, drawn, key_frame_index, choose, advance)
        except Unsuitable as reason:
            if not skip_unsuitable:
                raise
            report = f"Not carried, the edit is passed on. {reason}"
            show_text(report)
            return io.NodeOutput(latent, pictures.movedim(1, -1), report)
        latents, free = encoded(vae, result.frames, edit), (_on_latents(result.changed, edit) > 0.01).float()
        sampled = sample_again(model, inversion, latents, edit, free, positive, negative, cfg, denoise)
        report = _report(result, numbers, drawn is not None)
        show_text(report)
        return io.NodeOutput({"samples": sampled}, result.frames.movedim(1, -1), report)


def _on_latents(regions: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """Regions `f 1 h w` at the size of the latents: the largest value in each cell."""
    return F.adaptive_max_pool2d(regions, latents.shape[2:])


def _check(edit: torch.Tensor, inversion: Inversion, index: int) -> None:
    if edit.shape != inversion.noise.shape:
        raise ValueError(
            f"latent has the shape {list(edit.shape)}, but the inversion {list(inversion.noise.shape)}: connect the "
            "edit that EI2 Edit Sample made from this inversion."
        )
    if index >= len(edit):
        raise ValueError(
            f"There is no frame {index}: the clip's frames have the numbers 0 to {len(edit) - 1}; -1 finds the frame."
        )


def _pictures(vae, image: torch.Tensor, height: int, width: int, index: int) -> torch.Tensor:
    """The user's key frames, `n 3 h w`."""
    frames = check_video(image, "key_frame")
    if len(frames) > 1 and index >= 0:
        raise ValueError(
            f"key_frame holds {len(frames)} pictures, and key_frame_index is the number of only one: set it to -1, "
            "which finds the frame of each."
        )
    cropped = vae.vae_encode_crop_pixels(frames)  # as the clip was
    if cropped.shape[1:3] != (height, width):
        raise ValueError(
            f"key_frame is {frames.shape[2]} x {frames.shape[1]}, but the clip {width} x {height}: give it the clip's "
            "size, without moving what it shows."
        )
    return cropped.movedim(-1, 1)


def _report(result: Carried, numbers: list[int], drawn: bool) -> str:
    count, total = len(result.frames) - len(result.lost), len(result.frames)
    which = ("frames " if len(numbers) > 1 else "frame ") + listed(numbers)
    verb = "were" if len(numbers) > 1 else "was"
    what = f"Your {which}" if drawn else f"{which.capitalize()} of the edit"
    text = f"{what} {verb} carried to {count} of {total} frames."
    if not result.lost:
        return text
    return (
        f"{text} The object could not be followed to frames {listed(result.lost)}: it is hidden there, has "
        "left the picture or changes its form. These frames keep their own edit."
    )
