"""EI2 Recipe's four recipes with the miniature, each on several rendered clips, scored against the correct result.

Each clip is tuned on and inverted once, with the recipes' steps and learning rate (the same for all four). Each edit
uses the recipe's cfg and attention control, and its prompts and blend words as the recipe's note describes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.bench import Bench, BenchClip
from benchmarks.results import markdown_table
from benchmarks.runner import run
from devtools.in_process import pack
from ei2.measures import masked_psnr, psnr
from miniature.clips import bundled_clip, changed, moving
from miniature.judge import answers, right
from miniature.motion import Clip
from miniature.scene import Actor, View, object_mask, prompt, render, shape_view
from miniature.sheets import contact_sheet

RESTYLE, SWAP, PLACE, SUBTLE = "recolour / restyle", "swap the object", "new background", "subtle"
STEPS = 12  # of DDIM, as in the workflows
MINIATURE = 1  # its place among the kinds of model in the recipes
EVERY = 2  # the contact sheet shows every second frame
CASES = {  # by clip: the recipe, the target's attributes, and the blend words of source and target
    "car": (
        (RESTYLE, {"color": "blue"}, "car", "car"),
        (RESTYLE, {"look": "pixel art"}, "", ""),
        (SWAP, {"kind": "tractor"}, "red, car", "tractor"),
        (PLACE, {"place": "desert"}, "", ""),
        (SUBTLE, {"color": "orange"}, "red", "orange"),
    ),
    "cat": (
        (SWAP, {"kind": "rabbit"}, "cat", "rabbit"),
        (PLACE, {"place": "snow"}, "", ""),
        (RESTYLE, {"look": "night"}, "", ""),
        (RESTYLE, {"look": "pencil sketch"}, "", ""),
    ),
    "heart": (
        (RESTYLE, {"color": "green"}, "heart", "heart"),
        (SWAP, {"kind": "star", "color": "yellow"}, "pink, heart", "yellow, star"),
        (PLACE, {"background": "cyan"}, "", ""),
        (SUBTLE, {"kind": "circle"}, "heart", "circle"),
    ),
}


def clip_of(name: str) -> Clip:
    """One of the clips in `CASES`."""
    if name == "car":
        return bundled_clip()
    if name == "cat":
        cat = View((Actor("cat", radius=32.0),), "meadow")
        return moving(cat, 8, [(84.0, 84.0), (70.0, 60.0), (56.0, 60.0), (44.0, 84.0)])
    heart = shape_view("heart", "pink", "plain", "black", radius=32.0, angle=-0.2)
    return moving(heart, 8, [(84.0, 48.0), (70.0, 90.0), (56.0, 40.0), (46.0, 78.0)], turn=-0.5)


def measure(bench: Bench, name: str, steps: None, stem: Path) -> Iterator[dict]:
    """One row per case, and the clip's contact sheet."""
    clip, node = clip_of(name), pack("nodes.recipe")
    source = prompt(clip[0])
    video = BenchClip(bench, clip, source)
    budgets = {(recipe.steps[MINIATURE], node.LEARNING_RATE[MINIATURE]) for recipe in node.RECIPES.values()}
    ((tune_steps, learning_rate),) = budgets  # all recipes share one tuning
    model = bench.tuned(video, tune_steps, learning_rate=learning_rate, precision="fp32")
    inversion = bench.invert(model, video.latents, video.source, STEPS)
    sheet = {"source": video.frames[::EVERY]}
    for recipe_name, changes, old, new in CASES[name]:
        recipe, target = node.RECIPES[recipe_name], changed(clip, **changes)
        strength = {"cross_replace": recipe.cross_replace[MINIATURE], "self_replace": node.SELF_REPLACE}
        control = bench.attention_control(source, prompt(target[0]), blend_source=old, blend_target=new, **strength)
        sample, conds = pack("nodes.edit_sample").EditSample.execute, (control.target_conditioning, bench.empty)
        pictures = bench.decode(sample(model, inversion, *conds, recipe.cfg[MINIATURE], control).args[0]["samples"])
        sheet[", ".join(changes.values())] = pictures[::EVERY]
        about = {"clip": name, "recipe": recipe_name, "changes": changes, "source": source}
        yield {**about, "target": prompt(target[0]), "blend": [old, new], **score(bench, pictures, clip, target)}
    contact_sheet(sheet, stem.with_name(f"{stem.name}_{name}.png"))


def score(bench: Bench, pictures: torch.Tensor, clip: Clip, target: Clip) -> dict:
    """The measures of edited frames `f 3 h w`. `target`: the correct result."""
    truth = render(target)
    ground = 1 - torch.maximum(object_mask(clip), object_mask(target)).clamp(0, 1)
    judged = right(bench.judge, pictures, answers(target))
    return {
        "frames": len(target),
        "frames_right": {key: sum(seen[key] for seen in judged) for key in judged[0]},
        "psnr_to_truth": round(psnr(pictures, truth), 2),
        "unedited_to_truth": round(psnr(render(clip), truth), 2),
        "background_to_truth": round(masked_psnr(pictures, truth, ground), 2),
    }


def table(rows: list[dict]) -> str:
    """Markdown, a line per case."""
    heads = ("recipe", "from", "to", "worst attribute right in", "PSNR to the right result (unedited)", "background")
    lines = []
    for row in rows:
        worst = min(row["frames_right"], key=row["frames_right"].get)
        count = f"{row['frames_right'][worst]} of {row['frames']} ({worst})"
        whole = f"{row['psnr_to_truth']:.1f} dB ({row['unedited_to_truth']:.1f})"
        background = f"{row['background_to_truth']:.1f} dB"
        lines.append((row["recipe"], row["source"], row["target"], count, whole, background))
    return markdown_table(heads, lines, texts=3)


if __name__ == "__main__":
    sys.exit(run("recipes", __doc__, "recipes_{device}.json", list(CASES), measure, table))
