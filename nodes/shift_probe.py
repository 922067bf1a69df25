"""The node that plots the covariate shift."""

from __future__ import annotations

import re

from comfy_api.latest import io

from ..ei2.settings import PRESETS
from ..ei2.user_text import short
from ..host.inflation import require_inflation
from ..host.inputs import check_conditioning, check_frames, check_whole, clip_latents
from ..host.newer import ADVANCED, searchable
from ..host.shift import TIMESTEPS, block_names, check_timesteps, covariate_shift
from ..host.ui import drawn, progress
from ..host.unet import require_unet, transformer_blocks
from .pictures.plots import plot_shift


class ShiftProbe(io.ComfyNode):
    """Covariate shift per block."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EI2_ShiftProbe",
            display_name="EI2 Shift Probe",
            category="EI2",
            description="Measures how far an inflated model moves the features that the image model's frozen layers "
            "expect. This covariate shift makes edits flicker and ignore words. Lower is better.",
            **searchable("covariate shift, feature shift, flicker, diagnose"),
            inputs=[
                io.Model.Input("model", tooltip="An inflated model, usually a tuned one from EI2 One-Shot Tune."),
                io.Latent.Input("latent", tooltip="The clip to measure on: the one that was used for tuning."),
                io.Conditioning.Input("positive", tooltip="What the clip shows: the source prompt. Guidance is off."),
                io.String.Input(
                    "timesteps",
                    default=", ".join(map(str, TIMESTEPS)),
                    **ADVANCED,
                    tooltip="Noise levels to average over, from 0 (clean) to 999 (noise), separated by commas. The "
                    "plain and the inflated model run once for each.",
                ),
                io.Model.Input(
                    "compare_with",
                    optional=True,
                    tooltip="Another inflated model to plot next to the first, for instance Tune-A-Video against EI2, "
                    "tuned in the same way on the same clip.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="plot",
                    tooltip="Two plots over the blocks. Top: how far the mean moves, in standard deviations. Bottom: "
                    "the log-ratio of standard deviations. Dashed: the contribution of the temporal module "
                    "alone.",
                ),
                io.String.Output(display_name="table", tooltip="The same in numbers, for a text preview or a file."),
            ],
        )

    @classmethod
    def validate_inputs(cls, timesteps) -> None:
        """None: they come from another node."""
        if timesteps is not None:
            parse_timesteps(timesteps)

    @classmethod
    def execute(cls, model, latent, positive, timesteps, compare_with=None) -> io.NodeOutput:
        models = [model] if compare_with is None else [model, compare_with]
        levels = parse_timesteps(timesteps)
        for candidate in models:
            require_inflation(candidate)
            clip = clip_latents(candidate, latent)
            check_whole(candidate, clip.shape[0], "EI2 Shift Probe")
            check_frames(candidate, clip.shape[0], "the latent")
            check_timesteps(candidate, levels)
        if len({tuple(block_names(transformer_blocks(require_unet(candidate)))) for candidate in models}) > 1:
            raise ValueError("compare_with and model have different blocks: inflate both from the same checkpoint.")
        check_conditioning(positive, clip.shape[0], "positive")

        advance = progress(2 * len(levels) * len(models))
        shifts = {}
        for name, candidate in zip(("model", "compare_with"), models):
            label = f"{name} ({method(candidate)})"
            shifts[label] = covariate_shift(candidate, clip, positive, levels, on_step=advance)
        tables = [f"{label}, timesteps {', '.join(map(str, levels))}\n\n{s.table()}\n" for label, s in shifts.items()]
        return io.NodeOutput(drawn(lambda: plot_shift(shifts)), "\n".join(tables))


def parse_timesteps(text: str) -> list[int]:
    """Integers separated by commas or spaces, in the given order, without duplicates.
    Raises `ValueError` for anything else."""
    words = re.split(r"[\s,;]+", text.strip(" \t\r\n,;"))
    if not all(re.fullmatch(r"\d{1,9}", word, re.ASCII) for word in words):
        raise ValueError(
            f"timesteps is {short(text)}: give whole numbers separated by commas, such as "
            f"{', '.join(map(str, TIMESTEPS))}."
        )
    return list(dict.fromkeys(map(int, words)))


def method(model) -> str:
    """The preset a MODEL was inflated with, or `custom`, and whether it is tuned."""
    inflation = require_inflation(model)
    name = next((name for name, preset in PRESETS.items() if preset == inflation.settings), "custom")
    return name if inflation.tune else f"{name}, untuned"
