"""The node that makes the covariate shift visible."""

from __future__ import annotations

import re

from comfy_api.latest import io

from ..ei2.settings import PRESETS
from ..ei2.user_text import short
from .host.checks import check_conditioning, check_frames, check_whole, clip_latents
from .host.extras import drawn
from .host.inflation import require_inflation
from .host.newer_api import ADVANCED, offered
from .host.progress import progress
from .host.shift import TIMESTEPS, block_names, check_timesteps, covariate_shift
from .host.unet import require_unet, transformer_blocks
from .plots import plot_shift


class ShiftProbe(io.ComfyNode):
    """Covariate shift per block."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EI2_ShiftProbe",
            display_name="EI2 Shift Probe",
            category="EI2",
            description="Shows how far an inflated model moves the features that the image model's frozen layers "
            "expect: the covariate shift, which makes edits flicker and ignore words. Lower is better.",
            **offered(search_aliases=["covariate shift", "feature shift", "flicker", "diagnose"]),
            inputs=[
                io.Model.Input("model", tooltip="An inflated model, as a rule a tuned one from EI2 One-Shot Tune."),
                io.Latent.Input("latent", tooltip="The clip to look at: the one that was tuned on."),
                io.Conditioning.Input("positive", tooltip="What the clip shows: the source prompt. Guidance is off."),
                io.String.Input(
                    "timesteps",
                    default=", ".join(map(str, TIMESTEPS)),
                    **ADVANCED,
                    tooltip="Noise levels to look at and average over, 0 (clean) to 999 (noise), with commas between. "
                    "The plain and the inflated model run once for each.",
                ),
                io.Model.Input(
                    "compare_with",
                    optional=True,
                    tooltip="Another inflated model to draw beside the first: Tune-A-Video against EI2, say, tuned "
                    "equally on the same clip.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="plot",
                    tooltip="Per block: above how far the mean moves, in standard deviations; below the log-ratio of "
                    "standard deviations. Dashed: what the temporal module does on its own.",
                ),
                io.String.Output(display_name="table", tooltip="The same in numbers, for a text preview or a file."),
            ],
        )

    @classmethod
    def validate_inputs(cls, timesteps) -> bool | str:
        if timesteps is None:  # it comes from another node
            return True
        try:
            parse_timesteps(timesteps)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, model, latent, positive, timesteps, compare_with=None) -> io.NodeOutput:
        models = [model] if compare_with is None else [model, compare_with]
        chosen = parse_timesteps(timesteps)
        for one in models:
            require_inflation(one)
            clip = clip_latents(one, latent)
            check_whole(one, clip.shape[0], "EI2 Shift Probe")
            check_frames(one, clip.shape[0], "the latent")
            check_timesteps(one, chosen)
        if len({tuple(block_names(transformer_blocks(require_unet(one)))) for one in models}) > 1:
            raise ValueError("compare_with has other blocks than model: inflate both from the same checkpoint.")
        check_conditioning(positive, clip.shape[0], "positive")

        advance = progress(2 * len(chosen) * len(models))
        found = {}
        for name, one in zip(("model", "compare_with"), models):
            label = f"{name} ({method(one)})"
            found[label] = covariate_shift(one, clip, positive, chosen, on_step=advance)
        tables = [f"{label}, timesteps {', '.join(map(str, chosen))}\n\n{s.table()}\n" for label, s in found.items()]
        return io.NodeOutput(drawn(lambda: plot_shift(found)), "\n".join(tables))


def parse_timesteps(text: str) -> list[int]:
    """Whole numbers between commas or spaces, in the order given, each once. Raises `ValueError` for anything else."""
    words = re.split(r"[\s,;]+", text.strip(" \t\r\n,;"))
    if not all(re.fullmatch(r"\d{1,9}", word, re.ASCII) for word in words):
        raise ValueError(
            f"timesteps is {short(text)}: give whole numbers with commas between, such as "
            f"{', '.join(map(str, TIMESTEPS))}."
        )
    return list(dict.fromkeys(map(int, words)))


def method(model) -> str:
    """The preset a MODEL was inflated with, or `custom`, and whether it is tuned."""
    inflation = require_inflation(model)
    name = next((name for name, preset in PRESETS.items() if preset == inflation.settings), "custom")
    return name if inflation.tune else f"{name}, untuned"
