"""Measures a miniature in training on the world with things in it: its VAE, and what its pictures show.

    python -m miniature.evaluate_scenes --count 100

Text to image is judged by `scene_judge.py` for views with things, and by the bundled judge for shapes on patterns, so
these can be compared with the bundled miniature's figures. Writes `evaluation.json` and contact sheets next to the
UNet's checkpoint. Needs ComfyUI's folder on `PYTHONPATH`.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from . import host_classes  # noqa: F401  (sets the host up first)
from . import evaluate, scene
from .evaluate import GUIDANCE, SEED, TIMESTEPS, draw, text_to_image
from .judge import Judge
from .scene import View, prompt, random_view, render
from .scene_judge import SceneJudge, answers, right, shares
from .sheets import captioned_grid
from .train_unet import TextToImage, Tokens, alphas_cumprod

from comfy.taesd.taesd import TAESD

BARS = {"vae_things_db": 27, "vae_shapes_db": 33, "thing": 0.90, "color": 0.95, "place": 0.95, "look": 0.90}


class CheckpointMiniature:
    """A training's averaged weights, from the files `train_unet.py` and `train_vae.py` write. Latents `z` are those the
    UNet sees."""

    def __init__(self, unet_file: Path, vae_file: Path, device: str = "cpu"):
        state = torch.load(unet_file, map_location="cpu")
        self.steps, self.device = state["steps"], device
        self.tokens = Tokens(state["tokens"])
        self.model = TextToImage(len(self.tokens.used))
        prefix = "module."
        self.model.load_state_dict(
            {key[len(prefix) :]: value for key, value in state["average"].items() if key.startswith(prefix)}
        )
        self.model.to(device, memory_format=torch.channels_last)
        self.shift, self.scale, self.signal = state["shift"], state["scale"], alphas_cumprod()
        self.vae = TAESD()
        self.vae.load_state_dict(torch.load(vae_file, map_location="cpu")["model"])
        self.vae.to(device)

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        return (self.vae.taesd_encoder(pictures.to(self.device)).cpu() - self.shift) / self.scale

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.vae.taesd_decoder((z * self.scale + self.shift).to(self.device)).float().cpu().clamp(0, 1)

    def context(self, prompts: list[str]) -> torch.Tensor:
        return self.model.text(self.tokens(prompts).to(self.device))[0].float()

    def noise(self, x: torch.Tensor, t: int, context: torch.Tensor) -> torch.Tensor:
        x = x.to(self.device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device, torch.bfloat16):  # as in training
            return self.model.unet(x, torch.full((len(x),), t, device=self.device), context).float().cpu()


@torch.no_grad()
def reconstruction(miniature: CheckpointMiniature, shapes: float, count: int) -> dict[str, float]:
    """PSNR in dB of decoded against original unseen renders, the share `shapes` of which are shapes on patterns."""
    rng, psnr = random.Random(SEED), []
    for start in range(0, count, 16):
        pictures = render([random_view(rng, shapes=shapes) for _ in range(min(16, count - start))])
        decoded = miniature.decode(miniature.encode(pictures))
        psnr.append(-10 * (decoded - pictures).square().mean(dim=(1, 2, 3)).log10())
    values = torch.cat(psnr)
    return {
        "pictures": count,
        "mean_psnr_db": round(values.mean().item(), 2),
        "lowest_psnr_db": round(values.min().item(), 2),
    }


def things_to_image(
    miniature: CheckpointMiniature, judge: SceneJudge, count: int, guidance: float, batch: int = 25
) -> tuple[dict, list[View], torch.Tensor, list[dict[str, bool]]]:
    """The share of random prompts with things whose picture shows what was requested, per question and per thing; the
    views, their pictures `count 3 128 128`, and what was correct in each."""
    rng, generator = random.Random(SEED), torch.Generator().manual_seed(SEED)
    views = [random_view(rng, shapes=0.0) for _ in range(count)]
    pictures = torch.cat(
        [
            draw(miniature, [prompt(view) for view in views[i : i + batch]], guidance, generator)
            for i in range(0, count, batch)
        ]
    )
    found = right(judge, pictures, answers(views))
    things: dict[str, list[bool]] = {}
    for view, one in zip(views, found):
        if "thing" in one:
            things.setdefault(view.actors[0].kind, []).append(one["thing"])
    per_thing = {kind: f"{sum(votes)} of {len(votes)}" for kind, votes in sorted(things.items())}
    return (
        {"prompts": count, "guidance": guidance, "steps": len(TIMESTEPS), **shares(found), "per_thing": per_thing},
        views,
        pictures,
        found,
    )


def captions(views: Sequence[View], marks: Sequence[dict[str, bool]]) -> list[list[list[tuple[str, str]]]]:
    """For a grid of pictures: their prompts, and in red what the judge did not find in them."""
    texts = []
    for view, right_words in zip(views, marks):
        objects = " and ".join(scene.describe(actor) for actor in view.actors)
        place = scene.where(view).replace(" background", "") + ("" if view.look == "normal" else f", {view.look}")
        wrong = ", ".join(name for name, is_right in right_words.items() if not is_right)
        texts.append([[(objects, "black")], [(place, "black")], [(wrong and f"not found: {wrong}", "red")]])
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="prompts with things; a third as many with shapes")
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--unet", type=Path, default=Path("training/unet/checkpoint.pt"))
    parser.add_argument("--vae", type=Path, default=Path("training/vae/checkpoint.pt"))
    parser.add_argument("--judge", type=Path, default=Path("training/judge") / SceneJudge.FILE.name)
    args = parser.parse_args()

    folder = args.unet.parent
    miniature = CheckpointMiniature(args.unet, args.vae, args.device)
    scene_judge, shape_judge = SceneJudge.load(args.judge), Judge.load()
    print(f"UNet after {miniature.steps} steps", flush=True)
    results: dict = {"unet_steps": miniature.steps, "bars": BARS}
    pictures = max(16, args.count // 2)
    results["vae"] = {
        kind: reconstruction(miniature, share, pictures) for kind, share in (("things", 0.0), ("shapes", 1.0))
    }
    print(json.dumps(results["vae"]), flush=True)
    start = time.time()
    results["things"], views, drawn, found = things_to_image(miniature, scene_judge, args.count, args.guidance)
    print(f"{json.dumps(results['things'])} ({time.time() - start:.0f} s)", flush=True)
    captioned_grid(drawn[:64], captions(views[:64], found[:64]), folder / "samples.png")
    results["shapes"], scenes, drawn = text_to_image(miniature, shape_judge, max(args.count // 3, 1), args.guidance)
    print(json.dumps(results["shapes"]), flush=True)
    shape_captions = evaluate.captions(drawn[:40], scenes[:40], shape_judge)
    captioned_grid(drawn[:40], shape_captions, folder / "samples_shapes.png")
    (folder / "evaluation.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {folder / 'evaluation.json'}, samples.png and samples_shapes.png beside it")


if __name__ == "__main__":
    main()
