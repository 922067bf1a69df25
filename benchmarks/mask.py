"""The mask at EI2 Edit Sample: where the error outside of it lies, and what composing in pixels makes of it.

Each clip is tuned on and inverted; then its edit is sampled inside a mask that follows object and edit as tightly as
the renders allow, and inside the same mask with some room around it. Compared outside the mask with the clip: the
reconstruction (source prompt, no guidance), the edit as VAE Decode gives it, and the edit put together with the clip by
ComfyUI's own nodes, with a hard edge and with one made soft inwards. PSNR in dB.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from statistics import fmean

import torch

from benchmarks.editbench.bench import Bench
from benchmarks.editbench.clips import Clip, Edit, clips_of, motions_first
from benchmarks.results_file import write_results
from devtools.environment import ROOT
from devtools.in_process import pack
from ei2.measures import masked_psnr, psnr
from miniature.world import object_mask, render

TUNE_STEPS, LEARNING_RATE, GUIDANCE = 100, 1e-3, 2.0
KINDS = ("color", "shape", "shape_color")  # of edits, which leave the background alone
ROOMS = (0, 4, 14)  # pixels around object and edit; 14 as in the workflow masked_edit
BANDS = {"1-4": (0, 4), "5-8": (4, 8), "9-16": (8, 16), "17-": (16, 999)}  # pixels from the mask's edge
SOFT, SIGMA = 3, 1.5  # pixels by which the soft edge reaches inwards, and the blur's width, as in the workflow
OUTSIDE = {"reconstruction": "reconstruction", "edit, decoded": "decoded"}
WHOLE = {"decoded": "decoded_to_truth", "hard edge": "hard_to_truth", "soft edge": "soft_to_truth"}


def rows(bench: Bench, clip: Clip, steps: int) -> list[dict]:
    """One row per edit and mask. `steps`: of DDIM."""
    frames = render(list(clip.scenes))
    latents = bench.vae.encode(frames.movedim(1, -1))
    source, empty = bench.encode(clip.source_prompt), bench.encode("")
    model = bench.tuned(latents, source, TUNE_STEPS, LEARNING_RATE, "fp32")
    inversion = pack("nodes.invert").invert_plainly(model, latents, source, steps, 0, keep=True)
    sample = lambda prompt, cfg, kept=None: bench.decode(
        bench.sampling.sample(model, inversion.noise, prompt, empty, cfg, inversion.sigmas, kept)
    )
    reconstruction, found = sample(source, 1.0), []
    for edit in (edit for edit in clip.edits if edit.kind in KINDS):
        truth, target = render(list(edit.target_scenes)), bench.encode(edit.target_prompt)
        free = sample(target, GUIDANCE)
        for room in ROOMS:
            mask = mask_of(clip, edit, room)
            edited = sample(target, GUIDANCE, pack("nodes.edit_sample").kept_outside(mask, inversion))
            hard, soft = composed(frames, edited, mask), composed(frames, edited, soft_edge(mask))
            outside = (mask == 0).float().unsqueeze(1)
            error = lambda clip: round(masked_psnr(clip, frames, outside), 2)
            found.append(
                {
                    "clip": clip.name, "edit": edit.kind, "room": room, "inside": round(mask.mean().item(), 3),
                    "no_mask": error(free), "reconstruction": error(reconstruction), "decoded": error(edited),
                    "composed_largest_difference": ((hard - frames).abs() * outside).max().item(),
                    "soft_largest_difference": ((soft - frames).abs() * outside).max().item(),
                    "reconstruction_by_distance": by_distance(reconstruction, frames, mask),
                    "decoded_by_distance": by_distance(edited, frames, mask),
                    "no_mask_to_truth": round(psnr(free, truth), 2),
                    "decoded_to_truth": round(psnr(edited, truth), 2),
                    "hard_to_truth": round(psnr(hard, truth), 2),
                    "soft_to_truth": round(psnr(soft, truth), 2),
                }
            )  # fmt: skip
            print(json.dumps(found[-1]), flush=True)
    return found


def mask_of(clip: Clip, edit: Edit, room: int) -> torch.Tensor:
    """White where the object is, or will be, and `room` pixels around: `f h w`, 0 or 1."""
    both = torch.maximum(object_mask(list(clip.scenes)), object_mask(list(edit.target_scenes)))[:, 0]
    return host_node("nodes_mask", "GrowMask")().expand_mask((both > 0.02).float(), room, True)[0]


def soft_edge(mask: torch.Tensor) -> torch.Tensor:
    """The mask `f h w` with an edge that falls off inwards: nothing outside of it is touched."""
    drawn_in = host_node("nodes_mask", "GrowMask")().expand_mask(mask, -SOFT, False)[0]
    return host_node("nodes_post_processing", "Blur").execute(drawn_in.unsqueeze(-1), SOFT, SIGMA).args[0][..., 0]


def composed(source: torch.Tensor, edit: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The edit inside, the source outside: clips `f 3 h w`, mask `f h w`."""
    pictures = (clip.movedim(1, -1) for clip in (source, edit))
    return host_node("nodes_mask", "ImageCompositeMasked")().composite(*pictures, 0, 0, False, mask)[0].movedim(-1, 1)


def by_distance(clip: torch.Tensor, source: torch.Tensor, mask: torch.Tensor) -> dict[str, float]:
    """PSNR of what lies so many pixels outside the mask (steps to the side, up or down)."""
    grown = lambda pixels: host_node("nodes_mask", "GrowMask")().expand_mask(mask, pixels, True)[0]
    far = mask.shape[-1] + mask.shape[-2]
    bands = {name: grown(min(last, far)) - grown(first) for name, (first, last) in BANDS.items()}
    bands = {name: band.unsqueeze(1) for name, band in bands.items() if band.any()}
    return {name: round(masked_psnr(clip, source, band), 2) for name, band in bands.items()}


def host_node(module: str, name: str) -> type:
    """A node of ComfyUI's own."""
    return getattr(importlib.import_module(f"comfy_extras.{module}"), name)


def table(found: list[dict]) -> str:
    """Markdown: the means for each mask."""
    heads = [*(f"outside: {name}" for name in OUTSIDE), *(f"to the right result: {name}" for name in WHOLE)]
    lines = [f"| room around the object | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
    for room in ROOMS:
        some = [row for row in found if row["room"] == room]
        means = [fmean(row[key] for row in some) for key in (*OUTSIDE.values(), *WHOLE.values())]
        lines.append(f"| {room} px | " + " | ".join(f"{mean:.1f} dB" for mean in means) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="dev.py bench mask", description=__doc__)
    parser.add_argument("--clips", type=int, default=2, metavar="N", help="of the development split (default: 2)")
    parser.add_argument("--steps", type=int, default=50, help="DDIM steps (default: 50)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/mask_<device>.json")
    options = parser.parse_args()
    bench, found = Bench(options.device, torch.get_num_threads()), []
    device = "cuda" if bench.on_gpu else "cpu"
    output = options.output or ROOT / "benchmarks" / "results" / f"mask_{device}.json"
    fit = [clip for clip in clips_of("dev") if any(edit.kind in KINDS for edit in clip.edits)]
    fit = sorted(motions_first(fit), key=lambda clip: len(clip.scenes))
    with torch.inference_mode():
        for done, clip in enumerate(fit[: options.clips], start=1):
            found += rows(bench, clip, options.steps)
            write_results(output, f"mask --clips {done} --steps {options.steps}", options.device, found)
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
