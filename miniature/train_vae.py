"""Trains the miniature's VAE, of the TAESD architecture, on rendered crops.

    python -m miniature.train_vae --minutes 25

The encoder and decoder learn together; `--freeze-encoder` goes on with the decoder alone, so that a UNet can already
be trained on the finished latent space. Progress is saved every few minutes and picked up again by the next start.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import torch

from .optim import Optimizer, cosine
from .world import SIZE, random_scene, render

LATENT_NOISE = 0.05  # of a latent's unit deviation: the decoder must forgive small errors of the UNet


def crops(rng: random.Random, count: int, size: int) -> torch.Tensor:
    """Rendered crops near the object's outline, where the detail is, `count 3 size size`."""
    scenes = [random_scene(rng) for _ in range(count)]
    corner = [
        [min(max(c + rng.uniform(-0.9, 0.9) * s.radius - size / 2, 0), SIZE - size) for c in (s.x, s.y)]
        for s in scenes
    ]
    return render(scenes, window=torch.tensor(corner), size=size)


def reconstruction_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """MSE + L1 + L1 of the picture's gradients, which keeps edges sharp."""
    error = output - target
    dx, dy = error.diff(dim=-1).abs().mean(), error.diff(dim=-2).abs().mean()
    return 4 * error.square().mean() + error.abs().mean() + dx + dy


@torch.no_grad()
def evaluate(encoder, decoder, count: int = 64, seed: int = 999_999) -> tuple[float, torch.Tensor]:
    """Mean PSNR in dB over unseen renders, and their latents `count 4 16 16`."""
    rng = random.Random(seed)
    total, latents = 0.0, []
    for _ in range(0, count, 16):
        x = render([random_scene(rng) for _ in range(16)])
        z = encoder(x)
        y = decoder(z).clamp(0, 1)
        latents.append(z)
        total += (-10 * (y - x).square().mean(dim=(1, 2, 3)).log10()).sum().item()
    return total / count, torch.cat(latents)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=25, help="training time")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--crop", type=int, default=64, help="pixels")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--optimizer", choices=("muon", "adamw"), default="muon")
    parser.add_argument("--freeze-encoder", action="store_true")
    parser.add_argument("--run", type=Path, default=Path("training/vae"), help="folder for checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    from . import host_classes  # noqa: F401  (sets the host up first)
    from comfy.taesd.taesd import TAESD

    torch.manual_seed(args.seed)
    rng = random.Random(args.seed + 1)
    vae = TAESD().to(memory_format=torch.channels_last)
    for module in vae.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.Conv2d.reset_parameters(module)
    args.run.mkdir(parents=True, exist_ok=True)
    checkpoint = args.run / "checkpoint.pt"
    if checkpoint.exists():
        vae.load_state_dict(torch.load(checkpoint))
        rng.seed(time.time_ns())
    encoder, decoder = vae.taesd_encoder, vae.taesd_decoder
    trained = decoder if args.freeze_encoder else torch.nn.ModuleList([encoder, decoder])
    optimizer = Optimizer(trained, args.lr, kind=args.optimizer)

    start = last_report = time.time()
    step, running = 0, 0.0
    while (progress := (time.time() - start) / (60 * args.minutes)) < 1:
        x = crops(rng, args.batch, args.crop).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.set_grad_enabled(not args.freeze_encoder):
                z = encoder(x)
            y = decoder(z + LATENT_NOISE * torch.randn_like(z))
        loss = reconstruction_loss(y.float(), x)
        if not args.freeze_encoder:  # keep latents near unit variance, inside the decoder's soft clamp
            channels = z.float().transpose(0, 1).flatten(1)
            loss = loss + 0.01 * (channels.mean(1).square() + (channels.var(1) - 1).square()).mean()
        loss.backward()
        optimizer.step(cosine(progress, warmup=0.02))
        step, running = step + 1, 0.98 * running + 0.02 * loss.item()
        if time.time() - last_report > 60:
            last_report = time.time()
            psnr, z = evaluate(encoder, decoder)
            print(f"step {step} ({(time.time() - start) / step:.2f} s)  loss {running:.4f}  PSNR {psnr:.2f} dB  "
                  f"latent mean {z.mean().item():+.2f} std {z.std().item():.2f}", flush=True)
            torch.save(vae.state_dict(), checkpoint)
    torch.save(vae.state_dict(), checkpoint)
    print(f"finished after {step} steps: PSNR {evaluate(encoder, decoder, 256)[0]:.2f} dB")


if __name__ == "__main__":
    main()
