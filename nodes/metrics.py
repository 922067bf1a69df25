"""The node that scores an edit without a known correct result."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..ei2.masks import frame_masks
from ..ei2.measures import (
    PSNR_LIMIT,
    added_change,
    consecutive_cosines,
    cosines_to,
    frame_change,
    masked_psnr,
    mean_pair_cosine,
)
from ..ei2.ssim import WINDOW, masked_ssim
from ..host.clip import image_embeddings, text_embedding
from ..host.inputs import check_same_clip, check_video
from ..host.newer import searchable
from ..host.ui import drawn, progress, shown
from .pictures.score_plots import Panel, plot_metrics
from .pictures.score_table import ScoreTable

LEAST_KEPT = 1 / 128  # a share of a pixel outside the mask


class Metrics(io.ComfyNode):
    """Scores of an edit."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EI2_Metrics",
            display_name="EI2 Metrics (Flicker, CLIP)",
            category="EI2",
            description="Scores an edit against its source. Flicker always; with clip_vision, how similar the frames "
            "are; with clip and prompt too, how well they match the prompt; with mask, how well the rest "
            "was kept. For comparing edits of one clip: a single score says little.",
            **searchable("flicker, temporal consistency, frame consistency, clip score, text alignment, evaluate"),
            inputs=[
                io.Image.Input("source", tooltip="The clip's frames before the edit."),
                io.Image.Input("edit", tooltip="The edited frames, the same number and size."),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="From Load CLIP Vision. Without it there are no rows on frame consistency and text "
                    "alignment.",
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="From Load CLIP: the text half of the same CLIP model as clip_vision. For "
                    "clip-vit-large-patch14 the complete file works in both loaders; the text model inside a "
                    "Stable Diffusion 1.5 checkpoint lacks the projection. Needs prompt and clip_vision.",
                ),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    default="",
                    optional=True,
                    tooltip="The edit prompt: what the edit should show. Used only with clip.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="White where the edit may change the clip; one mask for all frames or one per frame. "
                    "Source and edit are compared outside it. Without it there are no rows on the background.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="table", tooltip="All scores, as a Markdown table."),
                io.Image.Output(display_name="plot", tooltip="The scores over the frames."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, source, edit, clip_vision=None, clip=None, prompt="", mask=None) -> io.NodeOutput:
        source, edit = check_video(source, "source"), check_video(edit, "edit")
        check_same_clip(source, edit, ("source", "edit"), "score an edit against the clip it was made from.")
        frames = len(source)
        if frames < 2:
            raise ValueError("source and edit have one frame: scores of a video need at least two.")
        if clip is not None and clip_vision is None:
            raise ValueError("Text alignment compares pictures with a prompt: connect clip_vision as well as clip.")
        if clip is not None and not prompt.strip():
            raise ValueError("prompt is empty: write what the edit should show, or disconnect clip.")
        kept = None
        if mask is not None:
            kept = 1 - frame_masks(mask, frames, *source.shape[1:3]).cpu()
            kept[kept < LEAST_KEPT] = 0  # white that was rounded, by resizing or in a JPEG
            if not kept.any():
                raise ValueError("The mask is white everywhere, so nothing is left to keep: is it inverted?")

        text = None
        if clip is not None:  # before the pictures, which are slow
            text = text_embedding(clip, prompt, image_embeddings(clip_vision, edit[:1]).shape[1])
        advance = progress(frames * (1 + 2 * (clip_vision is not None) + (mask is not None)))
        table, panels = ScoreTable(), []
        _flicker(source, edit, table, panels)
        advance(frames)
        if clip_vision is not None:
            step = lambda count: [advance() for _ in range(count)]
            ours, theirs = image_embeddings(clip_vision, edit, step), image_embeddings(clip_vision, source, step)
            _consistency(theirs, ours, table, panels)
            if text is not None:
                _alignment(theirs, ours, text, table, panels)
        if kept is not None:
            _background(source, edit, kept, table, panels, advance)
        plot = drawn(lambda: plot_metrics(panels, frames))
        return io.NodeOutput(table.markdown(), plot, ui=shown(cls, plot, table.lines()))


def _flicker(source: torch.Tensor, edit: torch.Tensor, table: ScoreTable, panels: list[Panel]) -> None:
    added, ours, theirs = 100 * added_change(edit, source), 100 * frame_change(edit), 100 * frame_change(source)
    table.add("flicker: change per frame beyond the source's, % of the range", added, better="lower")
    table.add("all change per frame, % of the range", ours, theirs)
    steps = {"span": 1.0, "from_zero": True, "between": True}
    panels.append(Panel("change per frame, %", {"edit": ours.tolist(), "source": theirs.tolist()}, **steps))
    panels.append(Panel(f"flicker: beyond the source's, %: {added.mean():.3g}", {"": added.tolist()}, **steps))


def _consistency(source: torch.Tensor, edit: torch.Tensor, table: ScoreTable, panels: list[Panel]) -> None:
    ours, theirs = consecutive_cosines(edit), consecutive_cosines(source)
    table.add("frame consistency: consecutive frames, CLIP cosine", ours, theirs, better="higher")
    pairs = [torch.tensor([mean_pair_cosine(vectors)]) for vectors in (edit, source)]
    table.add("frame consistency: all pairs, CLIP cosine", *pairs, better="higher")
    lines = {"edit": ours.tolist(), "source": theirs.tolist()}
    panels.append(Panel("frame consistency", lines, span=0.05, most=1.005, between=True))


def _alignment(
    source: torch.Tensor, edit: torch.Tensor, text: torch.Tensor, table: ScoreTable, panels: list[Panel]
) -> None:
    ours, theirs = cosines_to(edit, text), cosines_to(source, text)
    table.add("text alignment, CLIP cosine", ours, theirs, better="higher")
    panels.append(Panel("text alignment", {"edit": ours.tolist(), "source": theirs.tolist()}, span=0.05))


def _background(
    source: torch.Tensor, edit: torch.Tensor, kept: torch.Tensor, table: ScoreTable, panels: list[Panel], advance
) -> None:
    """Adds PSNR over all frames and per frame, and mean SSIM. Frames without a background count in neither."""
    source, edit = source.movedim(-1, 1), edit.movedim(-1, 1)
    psnrs, ssims = [], []
    for a, b, weights in zip(source.split(1), edit.split(1), kept.split(1)):
        there = bool(weights.any())
        psnrs.append(min(masked_psnr(a, b, weights), PSNR_LIMIT) if there else float("nan"))
        large = min(a.shape[2:]) >= WINDOW
        ssims.append(masked_ssim(a, b, weights) if large else None)
        advance()
    whole = min(masked_psnr(source, edit, kept), PSNR_LIMIT)
    table.add("background: PSNR outside the mask, dB", torch.tensor([whole]), better="higher")
    values = [value for value in ssims if value is not None]
    if values:
        table.add("background: SSIM outside the mask", torch.tensor(values), better="higher")
    panels.append(Panel(f"background, dB: {whole:.1f} over all frames", {"": psnrs}, span=4))
