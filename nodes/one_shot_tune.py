"""The node that tunes a model on one clip."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from comfy_api.latest import io

from ..ei2.optimizers import ADAMW, BYTES
from ..ei2.snapshot_file import check_snapshot
from ..ei2.tuning import TuneSettings
from ..ei2.wording import plural
from ..host.automatic import training_length, training_precision
from ..host.folders import list_snapshots, resolve_snapshot, snapshot_path
from ..host.graph import warn_of_words
from ..host.inflation import apply_tune, require_inflation
from ..host.inputs import check_conditioning, check_trainable, clip_latents
from ..host.newer import ADVANCED, check_static_clone, searchable
from ..host.snapshots import NONE, Snapshots, describe_run, resume, warn_of_folder
from ..host.tuning import TuningStep, tune_model
from ..host.ui import drawn, progress, show_text, shown
from .pictures.plots import plot_losses

PRECISION = ("auto", "bf16", "fp16", "fp32")
CHECKPOINTING = ("auto", "on", "off")
LEAST_RATE = 1e-6


class OneShotTune(io.ComfyNode):
    """One-shot tuning."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EI2_OneShotTune",
            display_name="EI2 One-Shot Tune",
            category="EI2",
            description="Trains an inflated model on the motion of one clip. Tune once per clip; every edit reuses "
            "the result.",
            **searchable(
                "tune-a-video, one-shot tuning, fine-tune, train, learn motion, motion", has_intermediate_output=True
            ),
            inputs=[
                io.Model.Input("model", tooltip="A model from EI2 Inflate UNet."),
                io.Latent.Input("latent", tooltip="The clip to learn: its frames through VAE Encode."),
                io.Conditioning.Input("positive", tooltip="What the clip shows, in plain words: the source prompt."),
                io.Int.Input(
                    "steps",
                    default=TuneSettings.steps,
                    min=0,
                    max=10_000,
                    tooltip="How long to train: 300 to 500 for Stable Diffusion, 25 for the miniature. Too few: the "
                    "motion is lost. Too many: the source comes back whatever the new prompt says. 0: auto, until "
                    "little more is learned, at most 500 (the miniature: 40).",
                ),
                io.Float.Input(
                    "learning_rate",
                    default=TuneSettings.learning_rate,
                    min=0,
                    max=1e-1,
                    step=LEAST_RATE,  # the editor shows and stores as many decimals as the step has
                    round=False,
                    tooltip="The size of each training step. 3e-5 suits Stable Diffusion, 3e-3 the miniature. 0: auto, "
                    "one of the two.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=False,
                    tooltip="The seed for the training noise. The same seed gives the same result.",
                ),
                io.Combo.Input(
                    "precision",
                    options=list(PRECISION),
                    default="auto",
                    **ADVANCED,
                    tooltip="The model's arithmetic during training. auto: bf16 where the GPU or the "
                    "CPU has units for it, otherwise fp16 on a GPU and fp32 on a CPU. The tune itself is always kept "
                    "in fp32.",
                ),
                io.Combo.Input(
                    "gradient_checkpointing",
                    options=list(CHECKPOINTING),
                    default="auto",
                    **ADVANCED,
                    tooltip="Saves memory by computing activations twice; a step then takes about half as long again. "
                    "auto: only when memory is short.",
                ),
                io.Int.Input(
                    "snapshot_every",
                    default=0,
                    min=0,
                    max=10_000,
                    optional=True,
                    **ADVANCED,
                    tooltip="Save the state every N steps, and at the end, to a file in models/ei2_tunes/snapshots; a "
                    "crash or a cancelled run then loses at most N steps. One file per clip and settings, "
                    "about three times as large as a tune. It is overwritten each time and kept until you "
                    "delete it. 0: never.",
                ),
                io.Combo.Input(
                    "resume_from",
                    options=[NONE, *list_snapshots()],
                    default=NONE,
                    optional=True,
                    **ADVANCED,
                    tooltip="A snapshot to continue from; the result is that of an unbroken run (with steps on 0, it "
                    "may end later). Everything except steps must be the same as before. With more steps, a finished "
                    "run continues too. Press R to find new snapshots.",
                ),
                io.Int.Input(
                    "preview_every",
                    default=0,
                    min=0,
                    max=10_000,
                    optional=True,
                    **ADVANCED,
                    tooltip="Every N steps, the node shows three frames of the clip and, below, how the model "
                    "denoises them from strong noise. They become more alike as it learns. A preview takes "
                    "about a third of a step. 0: never.",
                ),
                io.Int.Input(
                    "window_frames",
                    default=0,
                    min=0,
                    max=10_000,
                    optional=True,
                    tooltip="For clips too long to fit in memory: each step learns from this many consecutive frames, "
                    "anywhere in the clip. 0: from the whole clip. To invert and edit, add an EI2 Context "
                    "Windows node after this one, with this number as its context_length.",
                ),
                io.Combo.Input(
                    "optimizer",
                    options=list(BYTES),
                    default=ADAMW,
                    optional=True,
                    **ADVANCED,
                    tooltip="factored AdamW keeps 10 bytes per trained weight instead of 16: gigabytes less with SDXL. "
                    "Learning rates stay the same.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The tuned model, for EI2 Invert and EI2 Edit Sample."),
                io.Custom("EI2_TUNE").Output(display_name="tune", tooltip="What was learned, separate from the model."),
                io.Image.Output(
                    display_name="loss_plot",
                    tooltip="The loss over the steps, relative to that before the tuning. It should fall and "
                    "level off.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, resume_from=NONE) -> None:
        """Reports a wrong snapshot before anything runs. None: the name comes from another node."""
        if resume_from not in (None, NONE):
            check_snapshot(resolve_snapshot(resume_from))

    @classmethod
    def execute(
        cls,
        model,
        latent,
        positive,
        steps,
        learning_rate,
        seed,
        precision,
        gradient_checkpointing,
        snapshot_every=0,
        resume_from=NONE,
        preview_every=0,
        window_frames=0,
        optimizer=ADAMW,
    ) -> io.NodeOutput:
        require_inflation(model)
        check_static_clone(model)
        latents = clip_latents(model, latent)
        frames = latents.shape[0]
        if frames < 2:
            raise ValueError("The clip has one frame: load at least two; one frame has no motion to learn.")
        if window_frames == 1:
            raise ValueError("window_frames is 1: one frame has no motion; set it to 2 or more, or to 0.")
        check_conditioning(positive, frames, "positive")
        check_trainable(positive, "positive")
        if 0 < learning_rate < LEAST_RATE:  # the editor shows it as 0, which means auto
            raise ValueError(f"learning_rate is {learning_rate:g}: set it to {LEAST_RATE:g} or more, or to 0 for auto.")

        precision = training_precision(model, precision)
        most, rate, stop_early = training_length(model, steps, learning_rate)
        settings = TuneSettings(most, rate, seed, precision, window_frames=window_frames, optimizer=optimizer)
        warn_of_words(model, "positive", "clip")
        if snapshot_every:
            warn_of_folder(snapshot_path("").parent)
        run = describe_run(model, latents, positive, settings)
        start = resume(resume_from, run)
        if start:
            show_text(f"continues after step {len(start.losses)}")
        snapshots, advance, gains = Snapshots(run, resume_from), progress(most), []

        def loop(tuning: Iterator[TuningStep]) -> None:
            for step in tuning:
                gains.append(step.gain)
                if snapshot_every and step.number % snapshot_every == 0:
                    snapshots.keep(step.state())
                advance(step.number)
                if preview_every and step.number % preview_every == 0 and (picture := step.picture()):
                    advance(step.number, preview=picture)
            if gains:  # the bar is full after an early end, too
                if snapshot_every and step.number % snapshot_every:
                    snapshots.keep(step.state())
                advance(step.number, step.number)

        measured = {"measure_gain": True, "stop_early": stop_early}
        tune = tune_model(model, latents, positive, settings, gradient_checkpointing, loop, start, **measured)
        done = len(tune.losses)
        text = plural(done, "step") + (f", {done - len(start.losses)} of them now" if start else "")
        if done < most:
            text += ", then little more was learned"
        if rate != learning_rate:
            text += f"\nlearning rate {rate:g}"
        text = f"{text}\n{snapshots.report}".strip()
        plot = drawn(lambda: plot_losses(tune.losses, [] if start else torch.stack(gains).tolist()))
        return io.NodeOutput(apply_tune(model, tune), tune, plot, ui=shown(cls, text=text))
