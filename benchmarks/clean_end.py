"""The clean end of DDIM: σ = 0, as here, against the first training timestep, as in Stable Diffusion's scheduler.

The scheduler of Stable Diffusion (`set_alpha_to_one` is false) starts inversion and ends sampling at ᾱ₀, not at 1. Each
clip is tuned on once, with EditBench 2's equal budget, and then inverted and edited with both ends.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

import torch

from benchmarks.bench import Bench, BenchClip
from benchmarks.editbench.clips import Clip, clips_of, motions_first
from benchmarks.editbench.methods import EQUAL
from benchmarks.editbench.rows import pairs_of, select
from benchmarks.editbench.scores import score
from benchmarks.editbench.statistics import paired_bootstrap
from benchmarks.editbench.work import rounded
from benchmarks.results import markdown_table
from benchmarks.runner import run
from devtools.in_process import pack
from ei2.measures import psnr

ZERO, FIRST = "σ = 0", "ᾱ₀"
MEASURES = {"success": 100, "psnr": 1, "agreement": 1, "flicker": 1, "reconstruction_psnr": 1}  # and their scale


def measure(bench: Bench, clip: Clip, _: None, stem: Path) -> Iterator[dict]:
    """Two rows per edit."""
    video = BenchClip(bench, clip.views, clip.source_prompt)
    model = bench.tuned(video, EQUAL.steps, learning_rate=EQUAL.learning_rate)
    least = float(pack("host.unet").sigma_schedule(model)[0])
    for end, sigma in ((ZERO, 0.0), (FIRST, least)):
        scale = math.sqrt(1 + sigma**2)  # of the latents at that noise level, in σ-space
        with ending_at(sigma):
            inversion = bench.invert(model, video.latents * scale, video.source, EQUAL.ddim_steps)
        pictures = lambda latents, scale=scale: bench.decode(latents / scale)
        again = pictures(bench.sample_latents(model, inversion, video.source, 1.0))
        for edit in clip.edits:
            prompt, guidance = bench.encode(edit.target_prompt), {"guidance_end": EQUAL.guidance_end}
            edited = pictures(bench.sample_latents(model, inversion, prompt, EQUAL.cfg, **guidance))
            scores = score(edited, clip, edit, bench.judge) | {"reconstruction_psnr": psnr(again, video.frames)}
            measured = {name: rounded(scores[name]) for name in MEASURES}
            yield {"clip": clip.name, "edit": edit.kind, "seed": 0, "end": end, **measured}


@contextmanager
def ending_at(sigma: float):
    """Inversion starts, and the sampling that retraces it ends, at this noise level."""
    module = pack("host.sampling")
    plain = module.ddim_sigmas

    def grid(steps: int, schedule: torch.Tensor) -> torch.Tensor:
        sigmas = plain(steps, schedule)
        sigmas[-1] = sigma
        return sigmas

    module.ddim_sigmas = grid
    try:
        yield
    finally:
        module.ddim_sigmas = plain


def table(rows: list[dict]) -> str:
    """Markdown: the means at both ends, and the difference with its 95 % interval over clips."""
    lines = []
    for name, scale in MEASURES.items():
        first, zero, clips = pairs_of(*(select(rows, end=end) for end in (FIRST, ZERO)), name)
        first, zero = ([scale * value for value in values] for values in (first, zero))
        means = (f"{fmean(values):.3f}" for values in (zero, first))
        difference = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*paired_bootstrap(first, zero, clips))
        lines.append([name, str(len(clips)), *means, difference])
    return markdown_table(["measure", "edits", ZERO, FIRST, "difference"], lines)


if __name__ == "__main__":
    clips = motions_first(clips_of("dev"))
    sys.exit(run("clean-end", __doc__, "clean_end_{device}.json", clips, measure, table, count=11))
