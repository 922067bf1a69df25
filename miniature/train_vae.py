"""Trains the miniature's VAE, of the TAESD architecture, on rendered crops.

    python -m miniature.train_vae --minutes 25

The first start begins with the bundled weights. Encoder and decoder are trained together; `--freeze-encoder` continues
with the decoder alone, so a UNet can already be trained on the finished latent space. Progress is saved every few
minutes; the next start resumes from it and trains for its own `--minutes`. `--cool` lets the learning rate fall to 0
during this start, for the last one.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch

from . import scene, world
from .optim import Optimizer, clock, rate, save_whole
from .reconstruction import reconstruction_psnr

UNSEEN = 999_999  # the seed of the pictures to report on
LATENT_NOISE = 0.05  # of a latent's unit deviation: the decoder must tolerate small errors of the UNet

HARD = ("pencil sketch", "pixel art")  # the looks with the most detail, drawn more often


def crops(rng: random.Random, count: int, size: int) -> torch.Tensor:
    """Rendered crops, most of them near an object's outline, where the detail is, `count 3 size size`."""
    views = [scene.random_view(rng) for _ in range(count)]
    views = [
        view.edited(look=rng.choice(HARD)) if view.look != "normal" and rng.random() < 0.4 else view for view in views
    ]
    pictures = []
    for view, picture in zip(views, scene.render(views)):
        actor = rng.choice(view.actors)
        free = rng.random() < 0.25
        reach = world.SIZE if free else 0.9 * actor.radius
        x, y = (
            min(max(round(c + rng.uniform(-reach, reach) - size / 2), 0), world.SIZE - size) for c in (actor.x, actor.y)
        )
        pictures.append(picture[:, y : y + size, x : x + size])
    return torch.stack(pictures)


def reconstruction_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """MSE, weighted so that thin lines do not vanish, + L1 + L1 of the picture's gradients, which keeps edges sharp."""
    error = output - target
    dx, dy = error.diff(dim=-1).abs().mean(), error.diff(dim=-2).abs().mean()
    return 16 * error.square().mean() + error.abs().mean() + dx + dy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=25, help="computing time of this start")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--crop", type=int, default=64, help="pixels")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--cool", action="store_true", help="end with this start: the learning rate falls to nothing")
    parser.add_argument("--evaluate", type=int, default=64, help="unseen renders of each kind to report on at the end")
    parser.add_argument("--freeze-encoder", action="store_true")
    parser.add_argument("--run", type=Path, default=Path("training/vae"), help="folder for checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    from . import host_classes  # sets the host up

    args.run.mkdir(parents=True, exist_ok=True)
    checkpoint = args.run / "checkpoint.pt"
    state = torch.load(checkpoint, map_location="cpu") if checkpoint.exists() else {"steps": 0}
    vae = host_classes.load_vae(checkpoint if checkpoint.exists() else None)
    vae.to(args.device, memory_format=torch.channels_last)
    first = state["steps"]
    torch.manual_seed(args.seed + first)
    rng = random.Random(args.seed + 1 + first)
    encoder, decoder = vae.taesd_encoder, vae.taesd_decoder
    trained = decoder if args.freeze_encoder else torch.nn.ModuleList([encoder, decoder])
    optimizer = Optimizer(trained, args.lr)
    if state.get("frozen") == args.freeze_encoder and "optimizer" in state:
        optimizer.load_state_dict(state["optimizer"])

    def save() -> None:
        save_whole(
            checkpoint,
            {
                "model": vae.state_dict(),
                "optimizer": optimizer.state_dict(),
                "frozen": args.freeze_encoder,
                "steps": step,
            },
        )

    def report(count: int) -> str:
        encode = lambda pictures: encoder(pictures.to(args.device))
        things, z = reconstruction_psnr(encode, decoder, 0.0, count, UNSEEN)
        shapes, _ = reconstruction_psnr(encode, decoder, 1.0, count, UNSEEN)
        return (
            f"PSNR {things.mean().item():.2f} dB with things, {shapes.mean().item():.2f} dB with shapes; "
            f"latents: mean {z.mean().item():+.2f}, deviation {z.std().item():.2f}"
        )

    few = min(16, args.evaluate)  # full-size pictures take as long as several steps
    print(f"from step {first}: {report(few)}", flush=True)
    start = last_report = clock(args.device)
    step, running = first, 0.0
    while (progress := (clock(args.device) - start) / (60 * args.minutes)) < 1:
        x = crops(rng, args.batch, args.crop).to(args.device, memory_format=torch.channels_last)
        with torch.autocast(args.device, torch.bfloat16):
            with torch.set_grad_enabled(not args.freeze_encoder):
                z = encoder(x)
            y = decoder(z + LATENT_NOISE * torch.randn_like(z))
        loss = reconstruction_loss(y.float(), x)
        if not args.freeze_encoder:  # keep latents near unit variance, inside the decoder's soft clamp
            channels = z.float().transpose(0, 1).flatten(1)
            loss = loss + 0.01 * (channels.mean(1).square() + (channels.var(1) - 1).square()).mean()
        loss.backward()
        optimizer.step(rate(step - first, progress if args.cool else 0.0))
        step += 1
        running = loss.item() if step == first + 1 else 0.98 * running + 0.02 * loss.item()
        if clock(args.device) - last_report > 240:
            last_report = clock(args.device)
            seconds = (clock(args.device) - start) / (step - first)
            print(f"step {step} ({seconds:.2f} s)  loss {running:.4f}  {report(few)}", flush=True)
            save()
    save()
    print(f"stopped after step {step}: {report(args.evaluate)}", flush=True)


if __name__ == "__main__":
    main()
