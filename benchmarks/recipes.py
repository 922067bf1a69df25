"""EI2 Recipe's four recipes with the miniature: each on several rendered clips, scored against the right result.

Every clip is tuned on and inverted once, with the recipes' own steps and learning rate (the same for all four); the
edit takes the recipe's cfg and attention control, and its prompts and blend words as the recipe's note says.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.editbench.bench import Bench
from benchmarks.results_file import write_results
from devtools.environment import ROOT
from devtools.in_process import pack
from devtools.results import ATTRIBUTES, contact_sheet
from ei2.measures import masked_psnr, psnr
from miniature.clips import edited, moving, quickstart_clip
from miniature.world import Scene, object_mask, prompt, render

RESTYLE, SWAP, PLACE, SUBTLE = "recolour / restyle", "swap the object", "new background", "subtle"
STEPS = 50  # of DDIM, as in the workflows
SHOWN = 2  # every so many frames in the picture


@dataclass(frozen=True)
class Case:
    """`changes`: the target's attributes; `old`, `new`: the blend words, or none."""

    recipe: str
    changes: dict[str, str]
    old: str = ""
    new: str = ""


def clips() -> dict[str, tuple[list[Scene], tuple[Case, ...]]]:
    """The clips by name, each with its cases."""
    star = Scene("star", "yellow", "striped", "blue", radius=36.0, angle=0.2)
    heart = Scene("heart", "pink", "plain", "black", radius=32.0, angle=-0.2)
    down = [(44.0, 50.0), (60.0, 40.0), (70.0, 90.0), (84.0, 78.0)]
    back = [(84.0, 48.0), (70.0, 90.0), (56.0, 40.0), (46.0, 78.0)]
    return {
        "quickstart": (
            quickstart_clip(),
            (
                Case(RESTYLE, {"color": "red"}, "square", "square"),
                Case(SWAP, {"shape": "circle", "color": "red"}, "blue, square", "red, circle"),
                Case(PLACE, {"background": "green"}),
                Case(SUBTLE, {"color": "purple"}, "blue", "purple"),
                Case(PLACE, {"pattern": "checkered"}),
            ),
        ),
        "star": (
            moving(star, 8, down, turn=0.8, drift=(10.0, 0.0)),
            (
                Case(RESTYLE, {"color": "pink"}, "star", "star"),
                Case(SWAP, {"shape": "heart"}, "star", "heart"),
                Case(PLACE, {"background": "green"}),
                Case(SUBTLE, {"color": "orange"}, "yellow", "orange"),
                Case(PLACE, {"pattern": "checkered"}),
            ),
        ),
        "heart": (
            moving(heart, 8, back, turn=-0.5),
            (
                Case(RESTYLE, {"color": "green"}, "heart", "heart"),
                Case(SWAP, {"shape": "star", "color": "yellow"}, "pink, heart", "yellow, star"),
                Case(PLACE, {"background": "cyan"}),
                Case(SUBTLE, {"shape": "circle"}, "heart", "circle"),
            ),
        ),
    }


def run(bench: Bench, name: str) -> Iterator[tuple[dict, torch.Tensor]]:
    """A clip's rows with the edited frames `f 3 h w`, one per case."""
    scenes, cases = clips()[name]
    recipes, kind = pack("nodes.recipe"), 1  # the bundled miniature
    frames, source = render(scenes), prompt(scenes[0])
    latents = bench.vae.encode(frames.movedim(1, -1))
    budget = {(one.steps[kind], recipes.LEARNING_RATE[kind]) for one in recipes.RECIPES.values()}
    (steps, learning_rate) = budget.pop()
    assert not budget, "recipes that tune differently need a tuning each"
    model = bench.tuned(latents, bench.encode(source), steps, learning_rate, "fp32")
    inversion = pack("nodes.invert").invert_plainly(model, latents, bench.encode(source), STEPS, 0)
    for case in cases:
        recipe, target = recipes.RECIPES[case.recipe], edited(scenes, **case.changes)
        options = {one.id: getattr(one, "default", None) for one in bench.attention_control.define_schema().inputs}
        options |= {
            "clip": bench.clip_model, "source_prompt": source, "target_prompt": prompt(target[0]),
            "cross_replace": recipe.cross_replace[kind], "self_replace": recipes.SELF_REPLACE,
            "blend_source": case.old, "blend_target": case.new,
        }  # fmt: skip
        control = bench.attention_control.execute(**options).args[0]
        edit = pack("nodes.edit_sample").EditSample.execute
        conds = (control.target_conditioning, bench.encode(""))
        pictures = bench.decode(edit(model, inversion, *conds, recipe.cfg[kind], control).args[0]["samples"])
        yield {"clip": name, **score(bench, case, pictures, scenes, target)}, pictures


def score(bench: Bench, case: Case, pictures: torch.Tensor, scenes: list[Scene], target: list[Scene]) -> dict:
    """What a row says of the edited frames `f 3 h w`. `target`: what they should show."""
    truth, frames = render(target), render(scenes)
    ground = 1 - torch.maximum(object_mask(scenes), object_mask(target)).clamp(0, 1)
    judged = list(zip(bench.judge.see(pictures), target))
    right = {key: sum(seen[key] == getattr(scene, key) for seen, scene in judged) for key in ATTRIBUTES}
    return {
        "recipe": case.recipe,
        "changes": case.changes,
        "source": prompt(scenes[0]),
        "target": prompt(target[0]),
        "blend": [case.old, case.new],
        "frames": len(target),
        "frames_right": right,
        "psnr_to_truth": round(psnr(pictures, truth), 2),
        "unedited_to_truth": round(psnr(frames, truth), 2),
        "background_to_truth": round(masked_psnr(pictures, truth, ground), 2),
    }


def table(rows: list[dict]) -> str:
    """Markdown, a line per case."""
    heads = ("recipe", "from", "to", "worst attribute right in", "PSNR to the right result (unedited)", "background")
    lines = [f"| {' | '.join(heads)} |", "|---|---|---|---:|---:|---:|"]
    for row in rows:
        worst = min(row["frames_right"], key=row["frames_right"].get)
        lines.append(
            f"| {row['recipe']} | {row['source']} | {row['target']} | {row['frames_right'][worst]} of {row['frames']} "
            f"({worst}) | {row['psnr_to_truth']:.1f} dB ({row['unedited_to_truth']:.1f}) "
            f"| {row['background_to_truth']:.1f} dB |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="dev.py bench recipes", description=__doc__)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results", help="folder for the results")
    options = parser.parse_args()
    bench, rows = Bench(options.device, torch.get_num_threads()), []
    name = f"recipes_{'cuda' if bench.on_gpu else 'cpu'}"
    with torch.inference_mode():
        for clip, (scenes, _) in clips().items():
            sheet = {"source": render(scenes)[::SHOWN]}
            for row, pictures in run(bench, clip):
                rows.append(row)
                print(json.dumps(row), flush=True)
                sheet[", ".join(row["changes"].values())] = pictures[::SHOWN]
            contact_sheet(sheet, options.output / f"{name}_{clip}.png")
    write_results(options.output / f"{name}.json", "recipes", options.device, rows)
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
