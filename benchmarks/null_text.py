"""Null-text optimisation: how well guided sampling returns a clip, with it and without it.

Each clip is tuned on and inverted with its own prompt. It is then sampled with that prompt without guidance, with
guidance, and with guidance and the optimised embeddings. PSNR against the clip, in dB.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

from benchmarks.bench import Bench, BenchClip
from benchmarks.editbench.clips import Clip, clips_of, motions_first
from benchmarks.results import markdown_table
from benchmarks.runner import run
from devtools.in_process import pack
from ei2.measures import psnr

TUNING = {"steps": 100, "learning_rate": 1e-3, "precision": "bf16"}
GUIDANCE, INNER_STEPS = 7.5, 10
COLUMNS = {"no guidance": "unguided", "guidance": "plain", "with null-text": "null_text", "seconds": "seconds"}


def measure(bench: Bench, clip: Clip, steps: int, stem: Path) -> Iterator[dict]:
    """One row per clip: PSNRs, and the seconds of the optimisation."""
    video = BenchClip(bench, clip.views, clip.source_prompt)
    model = bench.tuned(video, **TUNING)
    inversion = bench.invert(model, video.latents, video.source, steps)
    begin = time.perf_counter()
    optimized = bench.with_null_text(model, inversion, video.source, INNER_STEPS, GUIDANCE)
    seconds = time.perf_counter() - begin
    scheduled = pack("host.null_text").scheduled_negative(model, bench.empty, optimized)

    def restored(negative: list, cfg: float) -> float:
        return round(psnr(bench.sample(model, inversion, video.source, cfg, negative), video.frames), 2)

    yield {
        "clip": clip.name,
        "frames": len(video.frames),
        "ddim_steps": steps,
        "unguided": restored(bench.empty, 1.0),
        "plain": restored(bench.empty, GUIDANCE),
        "null_text": restored(scheduled, GUIDANCE),
        "seconds": round(seconds, 1),
    }


def table(rows: list[dict]) -> str:
    """Markdown: a line per clip, and their mean."""
    mean = {"clip": "*mean*", **{key: fmean(row[key] for row in rows) for key in COLUMNS.values()}}
    lines = [[row["clip"], *(f"{row[key]:.1f}" for key in COLUMNS.values())] for row in (*rows, mean)]
    return markdown_table(["clip", *COLUMNS], lines)


if __name__ == "__main__":
    clips = motions_first(clips_of("dev"))
    sys.exit(run("null-text", __doc__, "null_text_{device}_{steps}.json", clips, measure, table, count=6, steps=12))
