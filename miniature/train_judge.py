"""Trains the judge (`judge.py`) on rendered pictures alone.

    python -m miniature.train_judge --minutes 15

A generative model's pictures are slightly soft, noisy or off in tone, so the renders are degraded at random, and the
judge learns to ignore it. The accuracy on unseen renders is printed and stored in the weights' metadata. Progress is
saved, and the next start resumes from it.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from .architecture import PIXELS
from .judge import CLASSES, FILE, Answers, Judge, examples
from .looks import blur
from .optim import Optimizer, clock, rate, save_whole


def labels(truth: list[Answers]) -> dict[str, torch.Tensor]:
    """The correct answers as probabilities `b classes`: zero if a question has no answer, halves if it has two."""
    result = {name: torch.zeros(len(truth), len(classes)) for name, classes in CLASSES.items()}
    for i, answer in enumerate(truth):
        for name, words in answer.items():
            words = (words,) if isinstance(words, str) else words
            for word in words:
                result[name][i, CLASSES[name].index(word)] = 1 / len(words)
    return result


def rescale(pictures: torch.Tensor, factor: float) -> torch.Tensor:
    """Shrinks the pictures by `factor` and enlarges them again, `b 3 h w`."""
    small = F.interpolate(pictures, scale_factor=factor, mode="bilinear", antialias=True)
    return F.interpolate(small, size=pictures.shape[-2:], mode="bilinear")


def imperfect(pictures: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """Degrades each quarter of the batch in its own way, `b 3 h w` in 0..1: unchanged, blurred,
    rescaled or both; then changes contrast and brightness, and adds faint colour noise and fine noise,
    for every picture except the first quarter."""
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
    """The share of correct answers per question over `count` unseen renders, each passed through `spoil`; questions
    without an answer, and with two, are left out."""
    rng = random.Random(seed)
    votes: dict[str, list[bool]] = {name: [] for name in CLASSES}
    for start in range(0, count, 50):
        pictures, truth = examples(rng, min(50, count - start))
        for answer, seen in zip(truth, judge.see(spoil(pictures))):
            for name, word in answer.items():
                if isinstance(word, str):
                    votes[name].append(seen[name] == word)
    return {name: sum(vote) / max(len(vote), 1) for name, vote in votes.items()}


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
        result[kind] = words(shares)
    return result


def words(shares: dict[str, float]) -> str:
    return ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=15, help="computing time of this start")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--cool", action="store_true", help="end with this start: the learning rate falls to nothing")
    parser.add_argument("--evaluate", type=int, default=2000, help="unseen renders of each kind to report on")
    parser.add_argument("--run", type=Path, default=Path("training/judge"), help="folder for checkpoint and weights")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    args.run.mkdir(parents=True, exist_ok=True)
    checkpoint = args.run / "checkpoint.pt"
    state = torch.load(checkpoint, map_location="cpu") if checkpoint.exists() else None
    first = state["steps"] if state else 0
    torch.manual_seed(args.seed + first)
    rng = random.Random(args.seed + 1 + first)
    judge = Judge()
    if state:
        judge.load_state_dict(state["model"])
    judge.to(args.device, memory_format=torch.channels_last)
    optimizer = Optimizer(judge, args.lr)
    if state:
        optimizer.load_state_dict(state["optimizer"])
    print(f"{sum(p.numel() for p in judge.parameters()) / 1e6:.2f} M parameters, from step {first}", flush=True)

    start = last_report = clock(args.device)
    step, running = first, 0.0
    while (progress := (clock(args.device) - start) / (60 * args.minutes)) < 1:
        pictures, truth = examples(rng, args.batch)
        pictures = imperfect(pictures, rng).to(args.device, memory_format=torch.channels_last)
        with torch.autocast(args.device, torch.bfloat16):
            logits = judge(pictures)
        loss = sum(
            -(target.to(args.device) * logits[name].float().log_softmax(dim=1)).sum(dim=1).mean()
            for name, target in labels(truth).items()
        )
        loss.backward()
        optimizer.step(rate(step - first, progress if args.cool else 0.0))
        step += 1
        running += (loss.item() - running) * max(0.02, 1 / (step - first))
        if clock(args.device) - last_report > 120:
            last_report = clock(args.device)
            print(
                f"step {step} ({(clock(args.device) - start) / (step - first):.3f} s)  loss {running:.4f}  "
                + words(accuracy(judge.cpu(), 100, seed=step)),
                flush=True,
            )
            judge.to(args.device)
            save_whole(checkpoint, {"model": judge.state_dict(), "optimizer": optimizer.state_dict(), "steps": step})
    save_whole(checkpoint, {"model": judge.state_dict(), "optimizer": optimizer.state_dict(), "steps": step})

    weights = {key: value.contiguous().half().cpu() for key, value in judge.state_dict().items()}
    judge = Judge().eval()
    # evaluate the weights as they are written
    judge.load_state_dict({key: value.float() for key, value in weights.items()})
    metadata = report(judge, args.evaluate)
    file = args.run / FILE.name
    save_file(weights, file, metadata={"pictures": f"{PIXELS} x {PIXELS}", "steps": str(step), **metadata})
    print(f"stopped after step {step}, {file.stat().st_size / 1e6:.2f} MB")
    for kind, line in metadata.items():
        print(f"{kind}: {line}")


if __name__ == "__main__":
    main()
