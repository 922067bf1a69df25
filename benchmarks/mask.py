"""The mask of EI2 Edit Sample: how much changes outside it, and what compositing in pixels removes.

Each clip is tuned on, inverted and edited inside masks: one that fits object and edit as tightly as the renders allow,
and larger ones with some room around it. Three results are compared with the clip outside the mask: the reconstruction
(source prompt, no guidance), the edit as VAE Decode returns it, and the edit composited onto the clip by ComfyUI's own
nodes, with a hard edge and with an edge softened inwards. PSNR in dB.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import torch

from benchmarks.bench import Bench, BenchClip
from benchmarks.editbench.clips import Clip, Edit, clips_of, motions_first
from benchmarks.results import markdown_table
from benchmarks.runner import run
from devtools.in_process import pack
from ei2.measures import masked_psnr, psnr
from miniature.scene import object_mask, render

TUNING = {"steps": 100, "learning_rate": 1e-3, "precision": "fp32"}
GUIDANCE = 2.0
KINDS = ("thing", "color", "shape", "shape_color")  # the edits that do not change the background
ROOMS = (0, 4, 14)  # pixels around object and edit; 14 as in the workflow masked_edit
BANDS = {"1-4": (0, 4), "5-8": (4, 8), "9-16": (8, 16), "17-": (16, 999)}  # pixels from the mask's edge
SOFT, SIGMA = 3, 1.5  # width of the soft edge inwards in pixels, and the blur's σ, as in the workflow
COLUMNS = {
    "outside: reconstruction": "reconstruction",
    "outside: edit, decoded": "decoded",
    "to the right result: decoded": "decoded_to_truth",
    "to the right result: hard edge": "hard_to_truth",
    "to the right result: soft edge": "soft_to_truth",
}


def measure(bench: Bench, clip: Clip, steps: int, stem: Path) -> Iterator[dict]:
    """One row per edit and mask."""
    video = BenchClip(bench, clip.views, clip.source_prompt)
    frames, model = video.frames, bench.tuned(video, **TUNING)
    inversion = bench.invert(model, video.latents, video.source, steps)
    reconstruction = bench.sample(model, inversion, video.source, 1.0)
    for edit in (edit for edit in clip.edits if edit.kind in KINDS):
        truth, target = render(edit.views), bench.encode(edit.target_prompt)
        free = bench.sample(model, inversion, target, GUIDANCE)
        for room in ROOMS:
            mask = mask_of(clip, edit, room)
            kept = pack("ei2.masks").kept_outside(mask, inversion)
            edited = bench.sample(model, inversion, target, GUIDANCE, kept=kept)
            hard, soft = composited(frames, edited, mask), composited(frames, edited, soft_edge(mask))
            outside = (mask == 0).float().unsqueeze(1)
            error = lambda pictures: round(masked_psnr(pictures, frames, outside), 2)
            to_truth = lambda pictures: round(psnr(pictures, truth), 2)
            yield {
                "clip": clip.name,
                "edit": edit.kind,
                "room": room,
                "inside": round(mask.mean().item(), 3),
                "no_mask": error(free),
                "reconstruction": error(reconstruction),
                "decoded": error(edited),
                "composed_largest_difference": ((hard - frames).abs() * outside).max().item(),
                "soft_largest_difference": ((soft - frames).abs() * outside).max().item(),
                "reconstruction_by_distance": by_distance(reconstruction, frames, mask),
                "decoded_by_distance": by_distance(edited, frames, mask),
                "no_mask_to_truth": to_truth(free),
                "decoded_to_truth": to_truth(edited),
                "hard_to_truth": to_truth(hard),
                "soft_to_truth": to_truth(soft),
            }


def mask_of(clip: Clip, edit: Edit, room: int) -> torch.Tensor:
    """A mask `f h w` of 0 and 1: white within `room` pixels of the source's and the target's object."""
    objects = torch.maximum(object_mask(clip.views), object_mask(edit.views))[:, 0]
    return grown((objects > 0.02).float(), room)


def soft_edge(mask: torch.Tensor) -> torch.Tensor:
    """The mask `f h w` with an edge softened inwards, so nothing changes outside."""
    smaller, blur = grown(mask, -SOFT, tapered=False), host_node("nodes_post_processing", "Blur")
    return blur.execute(smaller.unsqueeze(-1), SOFT, SIGMA).args[0][..., 0]


def composited(source: torch.Tensor, edit: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The edit inside the mask `f h w`, the source outside; clips `f 3 h w`."""
    pictures = (clip.movedim(1, -1) for clip in (source, edit))
    return host_node("nodes_mask", "ImageCompositeMasked")().composite(*pictures, 0, 0, False, mask)[0].movedim(-1, 1)


def by_distance(clip: torch.Tensor, source: torch.Tensor, mask: torch.Tensor) -> dict[str, float]:
    """PSNR in the bands around the mask. Distance is counted in horizontal and vertical steps."""
    far = mask.shape[-1] + mask.shape[-2]
    bands = {name: grown(mask, min(last, far)) - grown(mask, first) for name, (first, last) in BANDS.items()}
    return {name: round(masked_psnr(clip, source, band.unsqueeze(1)), 2) for name, band in bands.items() if band.any()}


def grown(mask: torch.Tensor, pixels: int, tapered: bool = True) -> torch.Tensor:
    """The mask grown by ComfyUI's own node."""
    return host_node("nodes_mask", "GrowMask")().expand_mask(mask, pixels, tapered)[0]


def host_node(module: str, name: str) -> type:
    """One of ComfyUI's own nodes."""
    return getattr(importlib.import_module(f"comfy_extras.{module}"), name)


def table(rows: list[dict]) -> str:
    """Markdown: the means for each mask."""
    lines = []
    for room in ROOMS:
        means = [fmean(row[key] for row in rows if row["room"] == room) for key in COLUMNS.values()]
        lines.append([f"{room} px", *(f"{mean:.1f} dB" for mean in means)])
    return markdown_table(["room around the object", *COLUMNS], lines)


if __name__ == "__main__":
    editable = [clip for clip in clips_of("dev") if any(edit.kind in KINDS for edit in clip.edits)]
    clips = sorted(motions_first(editable), key=lambda clip: len(clip.views))
    sys.exit(run("mask", __doc__, "mask_{device}.json", clips, measure, table, count=2, steps=50))
