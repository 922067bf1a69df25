"""Measures the miniature model: how well its VAE reconstructs, and how often its pictures show what the prompt says.

    python -m miniature.evaluate                          # the bundled weights, as the host loads them
    python -m miniature.evaluate --checkpoints training   # a training's checkpoints

Two kinds of unseen pictures: things in places, and shapes on patterns. The bundled weights' results go to
`benchmarks/results/miniature.json`, the model card and `assets/miniature_samples.png`; those of checkpoints into the
training's folder. Needs ComfyUI's folder on `PYTHONPATH`. Latents `z` are those the UNet sees, of about unit variance.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

import torch

from devtools.environment import ROOT

from .judge import FILE, Judge, answers, right, shares
from .drawing import TIMESTEPS, Miniature, draw
from .loaded import CheckpointMiniature, HostMiniature
from .reconstruction import reconstruction_psnr
from .scene import describe, prompt, random_view, where
from .sheets import captioned_grid

SAMPLES = ROOT / "assets" / "miniature_samples.png"
EVALUATION = ROOT / "benchmarks" / "results" / "miniature.json"
MODEL_CARD = Path(__file__).parent / "MODEL_CARD.md"
TABLE_BEGIN, TABLE_END = "<!-- evaluation: begin -->", "<!-- evaluation: end -->"
GUIDANCE = 5.0
SEED = 20_240_229
BATCH = 25  # pictures drawn at once
KINDS = {"things": 0.0, "shapes": 1.0}  # the share of shapes on patterns among the pictures


def reconstruction(miniature: Miniature, shapes: float, count: int) -> dict[str, float]:
    """PSNR of decoded against original unseen renders, the share `shapes` of which are shapes on patterns."""
    values, _ = reconstruction_psnr(miniature.encode, miniature.decode, shapes, count, SEED)
    return {
        "pictures": count,
        "mean_psnr_db": round(values.mean().item(), 2),
        "lowest_psnr_db": round(values.min().item(), 2),
    }


class Drawn:
    """Pictures drawn for random prompts, and what the judge finds in them.

    `views`: what was requested; `pictures` `count 3 128 128`; `found`: which answers are right, see `judge.right`."""

    def __init__(self, miniature: Miniature, judge: Judge, shapes: float, count: int, guidance: float):
        rng, generator = random.Random(SEED), torch.Generator().manual_seed(SEED)
        self.views = [random_view(rng, shapes=shapes) for _ in range(count)]
        batches = [self.views[i : i + BATCH] for i in range(0, count, BATCH)]
        self.pictures = torch.cat(
            [draw(miniature, [prompt(view) for view in batch], guidance, generator) for batch in batches]
        )
        self.found = right(judge, self.pictures, answers(self.views))

    def shares(self) -> dict:
        """The share of right answers per question, that of pictures with all of them, and the counts per thing."""
        votes: dict[str, list[bool]] = {}
        for view, found in zip(self.views, self.found):
            if "thing" in found:
                votes.setdefault(view.actors[0].kind, []).append(found["thing"])
        return {
            "prompts": len(self.views),
            **shares(self.found),
            "all": sum(all(found.values()) for found in self.found) / len(self.found),
            "per_thing": {kind: f"{sum(right)} of {len(right)}" for kind, right in sorted(votes.items())},
        }

    def sheet(self, count: int, file: Path) -> None:
        """The first `count` pictures under their prompts, and in red what the judge did not find in them."""
        captions = []
        for view, found in zip(self.views[:count], self.found):
            objects = " and ".join(describe(actor) for actor in view.actors)
            place = where(view).replace(" background", "") + ("" if view.look == "normal" else f", {view.look}")
            wrong = ", ".join(name for name, is_right in found.items() if not is_right)
            captions.append([[(objects, "black")], [(place, "black")], [(wrong and f"not found: {wrong}", "red")]])
        captioned_grid(self.pictures[:count], captions, file)


QUESTIONS = {  # of the judge, in words, and the bars, by kind of picture
    "things": {
        "thing": ("thing", "90 %"),
        "color": ("colour", "95 %"),
        "place": ("place", "95 %"),
        "look": ("look", "90 %"),
        "pair": ("both of two things", ""),
        "all": ("everything", ""),
    },
    "shapes": {
        "thing": ("shape", ""),
        "color": ("colour", ""),
        "place": ("pattern", ""),
        "background": ("background colour", ""),
        "all": ("everything", "98.5 %"),
    },
}


def model_card_table(results: dict) -> str:
    """The measured figures next to their targets, as Markdown."""
    vae, drawn = results["vae"], results["text_to_image"]
    rows = [
        (f"VAE reconstruction, {kind}", f"{vae[kind]['mean_psnr_db']:.1f} dB", f"{bar} dB")
        for kind, bar in (("things", 27), ("shapes", 33))
    ]
    rows += [
        (f"{kind}: {words} right", f"{100 * drawn[kind][question]:.1f} %", bar)
        for kind, questions in QUESTIONS.items()
        for question, (words, bar) in questions.items()
        if question in drawn[kind]
    ]
    lines = ["| measured | result | bar |", "|---|---|---|", *(f"| {a} | {b} | {c} |" for a, b, c in rows)]
    note = (
        f"Reconstruction: {vae['things']['pictures']} unseen renders of each kind. Text to image: "
        f"{drawn['things']['prompts']} random prompts with things in places (a few with shapes), "
        f"{drawn['shapes']['prompts']} with shapes on patterns, guidance "
        f"{results['guidance']:g}, {results['steps']} DDIM steps."
    )
    return "\n".join([*lines, "", note])


def update_model_card(results: dict) -> None:
    """Replaces the table between the model card's marks."""
    text = MODEL_CARD.read_text(encoding="utf-8")
    before, rest = text.split(TABLE_BEGIN)
    after = rest.split(TABLE_END)[1]
    table = model_card_table(results)
    MODEL_CARD.write_text(f"{before}{TABLE_BEGIN}\n{table}\n{TABLE_END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="prompts with things; half as many with shapes")
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    parser.add_argument("--checkpoints", type=Path, help="a training's folder; default: the bundled weights")
    text = "for checkpoints: that of the autoencoder the UNet was trained on; default: the bundled one"
    parser.add_argument("--vae", type=Path, help=text)
    parser.add_argument("--device", default="cpu", help="for checkpoints: cpu or cuda")
    args = parser.parse_args()

    judge = Judge.load()
    results: dict = {"guidance": args.guidance, "steps": len(TIMESTEPS)}
    if folder := args.checkpoints:
        miniature = CheckpointMiniature(folder / "unet" / "checkpoint.pt", args.vae, args.device)
        if (trained := folder / "judge" / FILE.name).exists():
            judge = Judge.load(trained)
        results["unet_steps"] = miniature.steps
        file, samples = folder / "evaluation.json", folder / "samples.png"
    else:
        miniature, file, samples = HostMiniature(), EVALUATION, SAMPLES
    counts = {"things": args.count, "shapes": max(args.count // 2, 1)}
    results["vae"] = {kind: reconstruction(miniature, share, counts["shapes"]) for kind, share in KINDS.items()}
    print(json.dumps(results), flush=True)
    results["text_to_image"] = {}
    for kind, share in KINDS.items():
        start = time.time()
        drawn = Drawn(miniature, judge, share, counts[kind], args.guidance)
        results["text_to_image"][kind] = drawn.shares()
        print(f"{kind}: {json.dumps(results['text_to_image'][kind])} ({time.time() - start:.0f} s)", flush=True)
        drawn.sheet(40, samples if kind == "things" else samples.with_stem(f"{samples.stem}_{kind}"))
    file.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if not folder:
        update_model_card(results)
    print(f"wrote {file}, {samples} and that of shapes beside it")


if __name__ == "__main__":
    main()
