"""From a clip to its first edit, and to the next one: EI2 against Tune-A-Video's public script, end to end.

The quickstart's clip and edit prompt, on one thread. The script's way is the literal implementation of the speed
benchmark (`speed/literal.py`), with 200 tuning steps (its default is 500), its 50 steps of inversion and 50 guided
steps; the rate and the strength of guidance are the miniature's. EI2 runs with the quickstart's settings, without its
carried frame, and with those of earlier versions. CPU seconds without loading models and without the judge; in how
many frames the judge sees what the prompt says; PSNR to the right result in dB; agreement of frames.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from benchmarks.bench import Bench, BenchClip
from benchmarks.editbench.agreement import agreement
from benchmarks.editbench.methods import EQUAL, SLOW, Budget
from benchmarks.results import markdown_table
from benchmarks.runner import run
from benchmarks.speed.literal import LATENT_SCALE, LiteralTuning, LiteralUNet, ddim
from devtools.in_process import pack
from ei2.measures import flicker, psnr
from miniature.clips import bundled_clip, bundled_truth
from miniature.judge import answers, right
from miniature.scene import prompt, render
from miniature.sheets import contact_sheet

CFG = 3.0
SCRIPT_STEPS, SCRIPT_RATE, SCRIPT_DDIM_STEPS = 200, 1e-3, 50
PHASES = ("tune", "invert", "edit")


@dataclass(frozen=True)
class Case:
    """How the clip is edited. `short`: its name in files; `work(bench, video, target, clock)` returns pictures
    `f 3 h w`."""

    name: str
    short: str
    work: Callable


@dataclass
class Clock:
    """CPU seconds by phase. `lap(phase)` ends one."""

    start: float = field(default_factory=time.process_time)
    seconds: dict[str, float] = field(default_factory=dict)

    def lap(self, phase: str) -> None:
        now = time.process_time()
        self.start, self.seconds[phase] = now, now - self.start


def script(bench: Bench, video: BenchClip, target: list, clock: Clock, shipped: bool) -> torch.Tensor:
    """Tune-A-Video's script, as shipped or as meant; the clip and the prompts are encoded beforehand, once more in its
    favour, but its tuning encodes the clip in every step."""
    model, half = bench.model, torch.bfloat16
    with torch.inference_mode(False):
        # what the host made under inference mode cannot be trained on
        weights = {name: weight.clone() for name, weight in model.model.diffusion_model.state_dict().items()}
        source, edit, empty = (one[0][0].clone() for one in (video.source, target, bench.empty))
        unet = LiteralUNet(dict(model.model.model_config.unet_config), weights, torch.float32, torch.device("cpu"))
        unet.shipped = shipped
        clip = video.frames.clone() * 2 - 1
        torch.manual_seed(0)
        tuning = LiteralTuning(unet, bench.vae.first_stage_model, clip, source, half, rate=SCRIPT_RATE)
        for _ in range(SCRIPT_STEPS):
            tuning.step()
        clock.lap("tune")
        latents = video.latents.clone() * LATENT_SCALE
        with torch.autocast("cpu", half):  # in effect in the script, too, which wraps the UNet in it
            noise = ddim(unet, latents, source, None, SCRIPT_DDIM_STEPS, lambda: None)
            clock.lap("invert")
            edited = ddim(unet, noise, torch.cat([empty, edit]), CFG, SCRIPT_DDIM_STEPS, lambda: None)
    pictures = bench.decode(edited / LATENT_SCALE)
    clock.lap("edit")
    return pictures


def quickstart(bench: Bench, video: BenchClip, target: list, clock: Clock) -> torch.Tensor:
    """EI2 with the settings of the quickstart: automatic steps and rate."""
    steps, rate, stop_early = pack("host.automatic").training_length(bench.model, 0, 0)
    settings = replace(EQUAL, steps=steps, learning_rate=rate)
    return edited(bench, video, target, clock, settings, stop_early)


def earlier(bench: Bench, video: BenchClip, target: list, clock: Clock) -> torch.Tensor:
    """EI2 with the settings of earlier versions, and today's arithmetic."""
    return edited(bench, video, target, clock, SLOW[0])


def edited(
    bench: Bench, video: BenchClip, target: list, clock: Clock, settings: Budget, stop_early: bool = False
) -> torch.Tensor:
    """An edit by the pack. `stop_early`: as in `tune_model`."""
    model = bench.inflate()
    precision = pack("host.automatic").training_precision(model, "auto")
    training = pack("ei2.tuning").TuneSettings(settings.steps, settings.learning_rate, precision=precision)
    tune, watched = pack("host.tuning").tune_model, {"stop_early": stop_early, "measure_gain": stop_early}
    learned = tune(model, video.latents, video.source, training, "auto", **watched)
    tuned = bench.apply(model, learned)
    clock.lap("tune")
    inversion = bench.invert(tuned, video.latents, video.source, settings.ddim_steps)
    clock.lap("invert")
    sampled = bench.sample_latents(tuned, inversion, target, settings.cfg, guidance_end=settings.guidance_end)
    pictures = bench.decode(sampled)
    clock.lap("edit")
    return pictures


CASES = (
    Case("Tune-A-Video's script, as shipped", "shipped", lambda *given: script(*given, shipped=True)),
    Case("Tune-A-Video's script, as meant", "meant", lambda *given: script(*given, shipped=False)),
    Case("EI2, settings of earlier versions", "earlier", earlier),
    Case("EI2", "ei2", quickstart),
)


def measure(bench: Bench, case: Case, _: None, stem: Path) -> Iterator[dict]:
    """One row, and a contact sheet."""
    if bench.on_gpu:
        raise SystemExit("The script's way runs on the CPU only: add --device cpu.")
    torch.set_num_threads(1)
    clip, views = bundled_clip(), bundled_truth()
    video, truth, target = BenchClip(bench, clip, prompt(clip[0])), render(views), bench.encode(prompt(views[0]))
    clock = Clock()
    pictures = case.work(bench, video, target, clock)
    found = right(bench.judge, pictures, answers(views))
    contact_sheet(
        {"source": video.frames, "edit": pictures, "right result": truth},
        stem.with_name(f"{stem.name}_{case.short}.png"),
    )
    yield {
        "way": case.name,
        **{phase: round(clock.seconds[phase], 1) for phase in PHASES},
        "right": sum(all(one.values()) for one in found),
        "frames": len(truth),
        "psnr": round(psnr(pictures, truth), 2),
        "flicker": round(flicker(pictures, truth), 4),
        "agreement": round(agreement(pictures, views), 3),
    }


def table(rows: list[dict]) -> str:
    """Markdown: one line per way; "times as fast" compares with the first."""
    total = lambda row: sum(row[phase] for phase in PHASES)
    heads = ["", *(f"{phase}, s" for phase in PHASES), "first edit, s", "times as fast", "next edit, times as fast"]
    heads += ["frames right", "PSNR", "flicker", "agreement"]
    lines = [
        [
            row["way"],
            *(f"{row[phase]:.1f}" for phase in PHASES),
            f"{total(row):.1f}",
            f"{total(rows[0]) / total(row):.1f}",
            f"{rows[0]['edit'] / row['edit']:.1f}",
            f"{row['right']} of {row['frames']}",
            f"{row['psnr']:.1f} dB",
            f"{row['flicker']:.3f}",
            f"{row['agreement']:.2f}",
        ]
        for row in rows
    ]
    return markdown_table(heads, lines)


if __name__ == "__main__":
    sys.exit(run("first-edit", __doc__, "first_edit_{device}.json", CASES, measure, table))
