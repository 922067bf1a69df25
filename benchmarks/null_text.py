"""Null-text optimisation: how well guided sampling returns the clip, with it and without.

Every clip is tuned on and inverted with its own prompt, and sampled again with that prompt: without guidance, with it,
and with it and the optimised embeddings. PSNR against the clip, in dB.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import fmean

import torch

from benchmarks.editbench.bench import Bench
from benchmarks.editbench.clips import Clip, clips_of, motions_first
from benchmarks.results_file import write_results
from devtools.environment import ROOT
from ei2.measures import psnr
from miniature.world import render

TUNE_STEPS, LEARNING_RATE = 100, 1e-3
GUIDANCE, INNER_STEPS = 7.5, 10
COLUMNS = {"no guidance": "unguided", "guidance": "plain", "with null-text": "null_text"}


def measure(bench: Bench, clip: Clip, steps: int) -> dict:
    """A row: PSNRs and the seconds of the optimisation. `steps`: of DDIM."""
    frames = render(list(clip.scenes))
    latents = bench.vae.encode(frames.movedim(1, -1))
    source, empty = bench.encode(clip.source_prompt), bench.encode("")
    model, trajectory = bench.tuned(latents, source, TUNE_STEPS, LEARNING_RATE, "bf16"), []
    noise, sigmas = bench.sampling.invert(model, latents, source, steps, 0, lambda x: trajectory.append(x.cpu()))

    begin = time.perf_counter()
    embeddings, _ = bench.null_text.null_text(
        model, trajectory[::-1], sigmas, source, empty, bench.null_text_settings(INNER_STEPS, GUIDANCE),
        precision=bench.null_text.null_text_precision(model),
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    start = empty[0][0].detach().cpu().float()
    inversion = bench.inversion.Inversion(noise, latents, sigmas, embeddings, start, GUIDANCE)
    scheduled = bench.null_text.scheduled_negative(model, empty, inversion)

    def restored(negative: list, cfg: float) -> float:
        return round(psnr(bench.decode(bench.sampling.sample(model, noise, source, negative, cfg, sigmas)), frames), 2)

    return {
        "clip": clip.name,
        "frames": len(frames),
        "ddim_steps": steps,
        "unguided": restored(empty, 1.0),
        "plain": restored(empty, GUIDANCE),
        "null_text": restored(scheduled, GUIDANCE),
        "seconds": round(seconds, 1),
    }


def table(rows: list[dict]) -> str:
    """Markdown, a line per clip and their mean."""
    lines = [f"| clip | {' | '.join(COLUMNS)} | seconds |", f"|---|{'---:|' * (len(COLUMNS) + 1)}"]
    keys = [*COLUMNS.values(), "seconds"]
    mean = {"clip": "*mean*", **{key: fmean(row[key] for row in rows) for key in keys}}
    for row in (*rows, mean):
        lines.append(f"| {row['clip']} | " + " | ".join(f"{row[key]:.1f}" for key in keys) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="dev.py bench null-text", description=__doc__)
    parser.add_argument("--clips", type=int, default=6, metavar="N", help="of the development split (default: 6)")
    parser.add_argument("--steps", type=int, default=12, help="DDIM steps (default: 12, as EditBench)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/null_text_<device>_<steps>.json")
    options = parser.parse_args()
    bench, rows = Bench(options.device, torch.get_num_threads()), []
    device = "cuda" if bench.on_gpu else "cpu"
    output = options.output or ROOT / "benchmarks" / "results" / f"null_text_{device}_{options.steps}.json"
    with torch.inference_mode():
        for clip in motions_first(clips_of("dev"))[: options.clips]:
            rows.append(measure(bench, clip, options.steps))
            print(json.dumps(rows[-1]), flush=True)
    command = f"null-text --clips {len(rows)} --steps {options.steps}"
    write_results(output, command, options.device, rows, threads=torch.get_num_threads())
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
