"""EI2 Carry Key Frame: do the frames of an edit agree in the new object's form, before and after it?

Two clips, the bundled one of a driving car and one of a turning square, are tuned on and inverted once and edited into
several things or shapes. Each edit is compared with the same edit after one of its own frames was carried through the
clip, and after the correct frame, as a person would draw it, was. Agreement of frames (`editbench/agreement.py`), in
how many frames the judge sees what the prompt says of the object, how far the object's size strays from its mean, PSNR
to the right result in dB, flicker, and CPU seconds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.bench import Bench, BenchClip
from benchmarks.editbench.agreement import agreement, regions
from benchmarks.results import markdown_table
from benchmarks.runner import run
from devtools.in_process import pack
from ei2.measures import flicker, psnr
from miniature.clips import KEY_FRAME, bundled_clip, changed, square_clip
from miniature.judge import answers, right
from miniature.motion import Clip
from miniature.scene import View, prompt, render
from miniature.sheets import contact_sheet

TUNING = {"steps": 25, "learning_rate": 3e-3, "precision": "bf16"}  # as in the workflows with fixed steps
GUIDANCE = 4.0
DENOISE = 0.3
METHODS = {"edit": "edit alone", "pasted": "pasted only", "carried": "carried", "drawn": "drawn"}
SCORES = {
    "agreement": "{:.2f}",
    "right": "{}",
    "size": "±{:.0%}",
    "psnr": "{:.1f} dB",
    "flicker": "{:.3f}",
    "seconds": "{:.1f} s",
}


@dataclass(frozen=True)
class Case:
    """A clip and what its object becomes: attributes of `Actor` per target."""

    clip: Clip
    targets: tuple[dict[str, str], ...]


SHAPES = {"circle": "red", "triangle": "green", "star": "orange", "heart": "red", "ring": "purple", "square": "green"}
CASES = (
    Case(bundled_clip(), tuple({"kind": kind} for kind in ("tractor", "elephant", "turtle", "duck"))),
    Case(square_clip(), tuple({"kind": shape, "color": color} for shape, color in SHAPES.items())),
)


def measure(bench: Bench, case: Case, steps: int, stem: Path) -> Iterator[dict]:
    """One row per target and method, and a contact sheet of every second frame per target."""
    clip = case.clip
    video = BenchClip(bench, clip, prompt(clip[0]))
    model = bench.tuned(video, **TUNING)
    inversion = bench.invert(model, video.latents, video.source, steps)
    node = pack("nodes.carry_key_frame").CarryKeyFrame
    for target in case.targets:
        views = changed(clip, **target)
        truth, positive = render(views), bench.encode(prompt(views[0]))
        latents, seconds = timed(lambda: bench.sample_latents(model, inversion, positive, GUIDANCE, guidance_end=0.5))
        drawn = truth[KEY_FRAME : KEY_FRAME + 1].movedim(1, -1)
        results = {"edit": (latents, seconds)}
        for method, denoise, picture in (("pasted", 0.0, None), ("carried", DENOISE, None), ("drawn", DENOISE, drawn)):
            carry = lambda: node.execute(
                model, inversion, {"samples": latents}, positive, bench.empty, bench.vae, 1.0, denoise, -1, picture
            )
            carried, seconds = timed(carry)
            results[method] = (carried.args[0]["samples"], seconds)
        sheet = {"source": video.frames}
        for method, (result, seconds) in results.items():
            pictures = sheet[METHODS[method]] = bench.decode(result)
            yield {
                "source": clip[0].actors[0].kind,
                "target": target["kind"],
                "method": method,
                "agreement": round(agreement(pictures, views), 3),
                "right": sum(map(of_the_object, right(bench.judge, pictures, answers(views)))),
                "size": round(size_spread(pictures, views), 3),
                "psnr": round(psnr(pictures, truth), 2),
                "flicker": round(flicker(pictures, truth), 4),
                "seconds": round(seconds, 1),
            }
        every_second = {name: clip[::2] for name, clip in {**sheet, "right result": truth}.items()}
        contact_sheet(every_second, stem.with_name(f"{stem.name}_{target['kind']}.png"))


def of_the_object(found: dict[str, bool]) -> bool:
    """Whether the judge sees the right object, in the right colour if the prompt names one."""
    return found["thing"] and found.get("color", True)


def size_spread(pictures: torch.Tensor, views: list[View]) -> float:
    """How far the object's size, the root of its area relative to the right result's, strays from its mean at most."""
    sizes = [regions(shown, views).sum(dim=(1, 2, 3)).sqrt() for shown in (pictures, render(views))]
    relative = sizes[0] / sizes[1]
    return float((relative / relative.mean() - 1).abs().max())


def timed(work) -> tuple:
    """What `work` returns, and its CPU seconds."""
    start = time.process_time()
    return work(), time.process_time() - start


def table(rows: list[dict]) -> str:
    """Markdown: one line per target and method."""
    scores = lambda row: [form.format(row[score]) for score, form in SCORES.items()]
    lines = [[f"{row['source']} to {row['target']}", METHODS[row["method"]], *scores(row)] for row in rows]
    heads = ["edit", "", "agreement", "frames right", "size", "PSNR", "flicker", "CPU time"]
    return markdown_table(heads, lines, texts=2)


if __name__ == "__main__":
    sys.exit(run("key-frame", __doc__, "key_frame_{device}.json", CASES, measure, table, steps=12))
