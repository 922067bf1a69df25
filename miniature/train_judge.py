"""Trains the judge on rendered pictures alone.

    python -m miniature.train_judge --minutes 6

Pictures of a generative model are a little soft, noisy or off in tone; so the renders are made imperfect at random, and
the judge learns to see through it. The accuracy on unseen renders is printed and kept in the weights' metadata.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from .architecture import PIXELS
from .judge import CLASSES, FILE, Judge
from .optim import Optimizer, cosine
from .world import Scene, random_scene, render


def labels(scenes: list[Scene]) -> dict[str, torch.Tensor]:
    """Class numbers per attribute, `b`."""
    return {name: torch.tensor([classes.index(getattr(scene, name)) for scene in scenes])
            for name, classes in CLASSES.items()}


def blur(pictures: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur with `sigma` in pixels, `b 3 h w`."""
    reach = max(1, round(2.5 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma).square())
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1).expand(3, 1, 1, -1)
    padded = F.pad(pictures, (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel, groups=3), kernel.transpose(2, 3), groups=3)


def rescale(pictures: torch.Tensor, factor: float) -> torch.Tensor:
    """Shrinks the pictures by `factor` and enlarges them again, `b 3 h w`."""
    small = F.interpolate(pictures, scale_factor=factor, mode="bilinear", antialias=True)
    return F.interpolate(small, size=pictures.shape[-2:], mode="bilinear")


def imperfect(pictures: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """Every quarter of the batch made imperfect in its own way, `b 3 h w` in 0..1: untouched, blurred, rescaled or
    both; then contrast, brightness and a faint coloured and fine noise for each picture but the first quarter."""
    clean, *others = pictures.chunk(4)
    others[0] = blur(others[0], rng.uniform(0.5, 2.5))
    others[1] = rescale(others[1], rng.uniform(0.35, 0.9))
    others[2] = rescale(blur(others[2], rng.uniform(0.4, 1.2)), rng.uniform(0.5, 0.9))
    x = torch.cat(others)
    each = (len(x), 1, 1, 1)
    x = 0.5 + (x - 0.5) * torch.empty(each).uniform_(0.85, 1.1) + torch.empty(each).uniform_(-0.05, 0.05)
    x = x + 0.02 * torch.randn(len(x), 3, 1, 1)
    cloud = F.interpolate(torch.randn(len(x), 3, 16, 16), size=x.shape[-2:], mode="bilinear")
    x = x + torch.empty(each).uniform_(0, 0.06) * cloud + torch.empty(each).uniform_(0, 0.05) * torch.randn_like(x)
    return torch.cat([clean, x.clamp(0, 1)])


@torch.no_grad()
def accuracy(judge: Judge, count: int, seed: int, spoil=lambda pictures: pictures) -> dict[str, float]:
    """Share of right answers per attribute over `count` unseen renders, each passed through `spoil`."""
    rng = random.Random(seed)
    right = dict.fromkeys(CLASSES, 0)
    for start in range(0, count, 50):
        scenes = [random_scene(rng) for _ in range(min(50, count - start))]
        for scene, seen in zip(scenes, judge.see(spoil(render(scenes)))):
            for name in CLASSES:
                right[name] += seen[name] == getattr(scene, name)
    return {name: n / count for name, n in right.items()}


def report(judge: Judge, count: int) -> dict[str, str]:
    """Accuracies in words: on clean, blurred, shrunk and noisy unseen renders."""
    spoiled = {
        "clean": lambda x: x,
        "blurred, sigma 2 pixels": lambda x: blur(x, 2.0),
        "shrunk to 40 %": lambda x: rescale(x, 0.4),
        "noise of deviation 0.05": lambda x: (x + 0.05 * torch.randn_like(x)).clamp(0, 1),
    }
    result = {}
    for kind, spoil in spoiled.items():
        shares = accuracy(judge, count, seed=123_456_789, spoil=spoil)
        result[kind] = ", ".join(f"{name} {100 * share:.2f} %" for name, share in shares.items())
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=6, help="training time")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--evaluate", type=int, default=2000, help="unseen renders of each kind to report on")
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    rng = random.Random(args.seed + 1)
    judge = Judge().to(memory_format=torch.channels_last)
    optimizer = Optimizer(judge, args.lr)
    print(f"{sum(p.numel() for p in judge.parameters()) / 1e6:.2f} M parameters", flush=True)

    start = last_report = time.time()
    step, running = 0, 1.0
    while (progress := (time.time() - start) / (60 * args.minutes)) < 1:
        scenes = [random_scene(rng) for _ in range(args.batch)]
        pictures = imperfect(render(scenes), rng).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            logits = judge(pictures)
        truth = labels(scenes)
        loss = sum(F.cross_entropy(logits[name].float(), truth[name]) for name in CLASSES)
        loss.backward()
        optimizer.step(cosine(progress, warmup=0.02))
        step, running = step + 1, 0.98 * running + 0.02 * loss.item()
        if time.time() - last_report > 30:
            last_report = time.time()
            shares = accuracy(judge, 200, seed=step)
            print(f"step {step} ({(time.time() - start) / step:.3f} s)  loss {running:.4f}  "
                  + "  ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items()), flush=True)

    weights = {key: value.contiguous().half() for key, value in judge.state_dict().items()}
    judge = Judge().eval()
    judge.load_state_dict({key: value.float() for key, value in weights.items()})  # judge what is written
    metadata = report(judge, args.evaluate)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, args.out, metadata={"pictures": f"{PIXELS} x {PIXELS}", "steps": str(step), **metadata})
    print(f"finished after {step} steps, {args.out.stat().st_size / 1e6:.2f} MB")
    for kind, line in metadata.items():
        print(f"{kind}: {line}")


if __name__ == "__main__":
    main()
