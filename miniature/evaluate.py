"""Measures the miniature model: how well its VAE reconstructs, and how often its pictures show what the prompt says.

    python -m miniature.evaluate

It uses the exported weights as the host loads them, and writes the results to `benchmarks/results/miniature.json` and
into the model card. Needs ComfyUI's folder on `PYTHONPATH`. `evaluate_scenes.py` watches a training. Latents `z` are
those the UNet sees, of about unit variance.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch

from .architecture import PIXELS
from .judge import CLASSES, Judge
from .sheets import captioned_grid
from .world import Scene, prompt, random_scene, render

PACK = Path(__file__).parent.parent
SAMPLES = PACK / "assets" / "miniature_samples.png"
EVALUATION = PACK / "benchmarks" / "results" / "miniature.json"
MODEL_CARD = Path(__file__).parent / "MODEL_CARD.md"
TABLE_BEGIN, TABLE_END = "<!-- evaluation: begin -->", "<!-- evaluation: end -->"
GUIDANCE = 5.0
TIMESTEPS = range(981, 0, -20)  # SD's 50 DDIM steps
SEED = 20_240_229


class Miniature(Protocol):
    """What the evaluation needs of a model, however it was loaded."""

    signal: torch.Tensor  # cumulative signal share ᾱ per timestep, `1000`

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pictures `b 3 h w` in 0..1 -> latents `b 4 h/8 w/8`."""

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Latents `b 4 h w` -> pictures `b 3 8h 8w` in 0..1."""

    def context(self, prompts: list[str]) -> torch.Tensor:
        """Text embeddings, `b 77 c`."""

    def noise(self, x: torch.Tensor, t: int, context: torch.Tensor) -> torch.Tensor:
        """The noise the UNet sees in `x` `b 4 h w` at timestep `t`."""


class HostMiniature:
    """The exported weights, loaded by the pack's own node code into the host's MODEL, CLIP and VAE."""

    def __init__(self):
        self.patcher, self.clip, self.vae = _import_pack("host.miniature").load_miniature()
        from comfy.model_management import get_torch_device, load_models_gpu

        load_models_gpu([self.patcher])
        self.model, self.device = self.patcher.model, get_torch_device()
        sigma = self.model.model_sampling.sigmas.float().cpu()
        self.signal = 1 / (1 + sigma.square())

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.model.process_latent_in(self.vae.encode(pictures.movedim(1, -1)))

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.vae.decode(self.model.process_latent_out(z)).movedim(-1, 1).float().cpu().clamp(0, 1)

    def context(self, prompts: list[str]) -> torch.Tensor:
        return torch.cat([self.clip.encode_from_tokens(self.clip.tokenize(text)) for text in prompts])

    def noise(self, x: torch.Tensor, t: int, context: torch.Tensor) -> torch.Tensor:
        a = self.signal[t]
        sigma = ((1 - a) / a).sqrt()
        x = (x / a.sqrt()).to(self.device)  # the host's latents are z / √ᾱ
        denoised = self.model.apply_model(x, sigma.to(self.device).expand(len(x)), c_crossattn=context.to(self.device))
        return ((x - denoised) / sigma).float().cpu()


def _import_pack(module: str):
    """A module of the pack, imported by path and under its own name, as the host does."""
    name = "ei2_pack"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            name, PACK / "__init__.py", submodule_search_locations=[str(PACK)]
        )
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return importlib.import_module(f"{name}.{module}")


def ddim(noise: Callable[[torch.Tensor, int], torch.Tensor], x: torch.Tensor, signal: torch.Tensor) -> torch.Tensor:
    """DDIM without added noise (Song et al., ICLR 2021) from `x` at timestep 981 down to a clean latent, `b 4 h w`.

    `noise(x, t)` predicts ε; `signal` is ᾱ per timestep.
    """
    steps = list(TIMESTEPS)
    for t, following in zip(steps, [*steps[1:], None]):
        a = signal[t]
        b = torch.ones(()) if following is None else signal[following]
        eps = noise(x, t)
        clean = (x - (1 - a).sqrt() * eps) / a.sqrt()
        x = b.sqrt() * clean + (1 - b).sqrt() * eps
    return x


@torch.no_grad()
def draw(miniature: Miniature, prompts: list[str], guidance: float, generator: torch.Generator) -> torch.Tensor:
    """A picture per prompt, `b 3 128 128`, with classifier-free guidance against the empty prompt."""
    count = len(prompts)
    context = torch.cat([miniature.context(prompts), miniature.context([""]).expand(count, -1, -1)])

    def guided(x: torch.Tensor, t: int) -> torch.Tensor:
        conditional, unconditional = miniature.noise(torch.cat([x, x]), t, context).chunk(2)
        return unconditional + guidance * (conditional - unconditional)

    start = torch.randn(count, 4, PIXELS // 8, PIXELS // 8, generator=generator)
    return miniature.decode(ddim(guided, start, miniature.signal))


@torch.no_grad()
def reconstruction(miniature: Miniature, judge: Judge, count: int) -> dict[str, float]:
    """PSNR in dB of decoded against original unseen renders; and the share of decoded pictures in which the judge finds
    all four attributes, which is the most that text to image can reach."""
    rng, psnr, right = random.Random(SEED), [], 0
    for start in range(0, count, 16):
        scenes = [random_scene(rng) for _ in range(min(16, count - start))]
        pictures = render(scenes)
        decoded = miniature.decode(miniature.encode(pictures))
        psnr.append(-10 * (decoded - pictures).square().mean(dim=(1, 2, 3)).log10())
        right += sum(all(found.values()) for found in compare(scenes, judge.see(decoded)))
    psnr = torch.cat(psnr)
    return {
        "pictures": count,
        "mean_psnr_db": round(psnr.mean().item(), 2),
        "lowest_psnr_db": round(psnr.min().item(), 2),
        "all_four": right / count,
    }


def compare(scenes: list[Scene], seen: list[dict[str, str]]) -> list[dict[str, bool]]:
    """Which attributes of each scene the judge saw."""
    return [{name: saw[name] == getattr(scene, name) for name in CLASSES} for scene, saw in zip(scenes, seen)]


def text_to_image(
    miniature: Miniature, judge: Judge, count: int, guidance: float, batch: int = 25
) -> tuple[dict[str, float], list[Scene], torch.Tensor]:
    """The share of random prompts whose picture shows each attribute, and all four; the requested scenes
    and their pictures `count 3 128 128`."""
    rng, generator = random.Random(SEED), torch.Generator().manual_seed(SEED)
    scenes = [random_scene(rng) for _ in range(count)]
    pictures = torch.cat(
        [
            draw(miniature, [prompt(scene) for scene in scenes[i : i + batch]], guidance, generator)
            for i in range(0, count, batch)
        ]
    )
    right = compare(scenes, judge.see(pictures))
    shares = {name: sum(r[name] for r in right) / count for name in CLASSES}
    shares["all_four"] = sum(all(r.values()) for r in right) / count
    return {"prompts": count, "guidance": guidance, "steps": len(TIMESTEPS), **shares}, scenes, pictures


def captions(pictures: torch.Tensor, scenes: list[Scene], judge: Judge) -> list[list[list[tuple[str, str]]]]:
    """For a grid of the pictures: their prompts, in which the words that the judge did not find are red."""
    color = lambda scene, answer, name: "black" if answer[name] == getattr(scene, name) else "red"
    return [
        [
            [(getattr(scene, name), color(scene, answer, name)) for name in names]
            for names in (("color", "shape"), ("pattern", "background"))
        ]
        for scene, answer in zip(scenes, judge.see(pictures))
    ]


def model_card_table(results: dict) -> str:
    """The measured figures next to their targets, as Markdown."""
    vae, shares = results["vae"], results["text_to_image"]
    rows = [(f"VAE reconstruction, {vae['pictures']} unseen renders", f"{vae['mean_psnr_db']:.1f} dB", "30 dB")]
    bars = {"shape": 90, "color": 95, "background": 95, "pattern": 90}
    names = {"shape": "shape", "color": "object colour", "background": "background colour", "pattern": "pattern"}
    rows += [(f"{names[key]} right", f"{100 * shares[key]:.1f} %", f"{bar} %") for key, bar in bars.items()]
    rows += [("all four right", f"{100 * shares['all_four']:.1f} %", "")]
    lines = ["| measured | result | bar |", "|---|---|---|", *(f"| {a} | {b} | {c} |" for a, b, c in rows)]
    note = (
        f"Text to image: {shares['prompts']} random prompts, guidance {shares['guidance']:g}, "
        f"{shares['steps']} DDIM steps."
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
    parser.add_argument("--count", type=int, default=200, help="prompts")
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    parser.add_argument("--json", type=Path, default=EVALUATION)
    parser.add_argument("--samples", type=Path, default=SAMPLES, help="contact sheet")
    args = parser.parse_args()

    from . import host_classes  # noqa: F401  (sets the host up first)

    miniature = HostMiniature()
    judge = Judge.load()
    start = time.time()
    vae = reconstruction(miniature, judge, 256 if args.count >= 200 else 64)
    print(
        f"VAE over {vae['pictures']} unseen renders: mean {vae['mean_psnr_db']} dB, "
        f"lowest {vae['lowest_psnr_db']} dB, judged right {100 * vae['all_four']:.1f} % "
        f"({time.time() - start:.0f} s)",
        flush=True,
    )
    start = time.time()
    shares, scenes, pictures = text_to_image(miniature, judge, args.count, args.guidance)
    print(
        f"text to image, {args.count} prompts, guidance {args.guidance:g} ({time.time() - start:.0f} s): "
        + "  ".join(f"{name} {100 * shares[name]:.1f} %" for name in (*CLASSES, "all_four")),
        flush=True,
    )
    captioned_grid(pictures[:40], captions(pictures[:40], scenes[:40], judge), args.samples)
    results = {"vae": vae, "text_to_image": shares}
    args.json.write_text(json.dumps(results, indent=2) + "\n")
    update_model_card(results)
    print(f"wrote {args.json} and {args.samples}")


if __name__ == "__main__":
    main()
