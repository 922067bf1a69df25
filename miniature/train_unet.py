"""Trains the miniature's UNet and text encoder together, on latents of rendered pictures.

    python -m miniature.train_unet --minutes 90

ε-prediction on SD's noise schedule; min-SNR loss weights (Hang et al., ICCV 2023) so that outlines, which are decided
at middle noise levels, are learned early; exponential moving average of the weights. The VAE's encoder is slow, so a
bank of latents is encoded once and then grows by a few pictures each step. Progress is saved every few minutes and
picked up again by the next start.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel

from . import host_classes
from .architecture import BETA_END, BETA_START, TRAIN_STEPS
from .optim import Optimizer, cosine
from .world import COLORS, PATTERNS, PHRASINGS, SHAPES, Scene, prompt, random_prompt, random_scene, render

from comfy.sd1_clip import SD1Tokenizer
from comfy.taesd.taesd import TAESD

MIN_SNR_GAMMA = 5.0
EMPTY_PROMPTS = 0.1  # share trained without a prompt, for classifier-free guidance
HOST_SCALE = 0.18215  # SD1's latent scale: the host multiplies the VAE's latents by it


def alphas_cumprod() -> torch.Tensor:
    """SD's cumulative signal share ᾱ per timestep, `1000`."""
    beta = torch.linspace(BETA_START**0.5, BETA_END**0.5, TRAIN_STEPS, dtype=torch.float64) ** 2
    return (1 - beta).cumprod(0).float()


class Tokens:
    """The host's SD1 tokenizer with its token numbers packed into the few rows the miniature's prompts use.

    `used`: the token numbers of a training that is already under way; default: all that prompts can hold.
    """

    def __init__(self, used: list[int] | None = None):
        self.tokenizer = SD1Tokenizer()
        self.cache: dict[str, list[int]] = {}
        scenes = [Scene(s, c, p, b) for s in SHAPES for c in COLORS for p in PATTERNS for b in COLORS]
        every_word = ["", *(prompt(scene, phrasing) for scene in scenes for phrasing in PHRASINGS)]
        self.used = used or sorted({token for text in every_word for token in self._raw(text)})
        self.row = {token: i for i, token in enumerate(self.used)}

    def _raw(self, text: str) -> list[int]:
        return [token for token, _ in self.tokenizer.tokenize_with_weights(text)["l"][0]]

    def __call__(self, texts: list[str]) -> torch.Tensor:
        """Rows of the embedding table, `b 77`."""
        for text in texts:
            if text not in self.cache:
                self.cache[text] = [self.row[token] for token in self._raw(text)]
        return torch.tensor([self.cache[text] for text in texts])


class LatentBank:
    """Scenes with their latents at unit variance, growing while the training runs."""

    def __init__(self, encoder, rng: random.Random, shift: float, scale: float):
        self.encoder, self.rng, self.shift, self.scale = encoder, rng, shift, scale
        self.scenes: list[Scene] = []
        self.latents: list[torch.Tensor] = []

    @torch.no_grad()
    def grow(self, count: int) -> None:
        scenes = [random_scene(self.rng) for _ in range(count)]
        pictures = render(scenes).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            latents = self.encoder(pictures).float()
        self.scenes += scenes
        self.latents += list((latents - self.shift) / self.scale)

    def draw(self, count: int) -> tuple[list[Scene], torch.Tensor]:
        """Random scenes and their latents `count 4 16 16`."""
        index = [self.rng.randrange(len(self.scenes)) for _ in range(count)]
        return [self.scenes[i] for i in index], torch.stack([self.latents[i] for i in index])


class TextToImage(torch.nn.Module):
    """UNet and text encoder as one trainable: latents, timesteps, token rows -> predicted noise."""

    def __init__(self, rows: int):
        super().__init__()
        self.unet = host_classes.build_unet()
        self.text = host_classes.build_text_encoder(rows)

    def forward(self, x, t, tokens):
        context = self.text(tokens)[0]
        options = {"optimized_attention_override": host_classes.differentiable_attention}
        return self.unet(x, t, context, transformer_options=options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=90, help="training time")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--bank", type=int, default=4096, help="latents encoded before the first step")
    parser.add_argument("--grow", type=int, default=2, help="latents added per step")
    parser.add_argument("--vae", type=Path, default=Path("training/vae/checkpoint.pt"))
    parser.add_argument("--run", type=Path, default=Path("training/unet"), help="folder for checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    rng = random.Random(args.seed + 1)
    vae = TAESD()
    vae.load_state_dict(torch.load(args.vae))
    encoder = vae.taesd_encoder.requires_grad_(False).to(memory_format=torch.channels_last)
    checkpoint = args.run / "checkpoint.pt"
    state = torch.load(checkpoint) if checkpoint.exists() else None
    tokens = Tokens(state and state["tokens"])
    model = TextToImage(len(tokens.used)).to(memory_format=torch.channels_last)
    optimizer = Optimizer(model, args.lr)
    average = AveragedModel(model, avg_fn=moving_average)
    print(f"UNet {count(model.unet) / 1e6:.2f} M, text encoder {count(model.text) / 1e6:.2f} M parameters, "
          f"{len(tokens.used)} tokens", flush=True)

    args.run.mkdir(parents=True, exist_ok=True)
    done, shift, scale = 0.0, None, None
    if state:
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        done, shift, scale = state["progress"], state["shift"], state["scale"]
        rng.seed(time.time_ns())
    if shift is None:
        probe = LatentBank(encoder, random.Random(7), 0.0, 1.0)
        probe.grow(64)
        latents = torch.stack(probe.latents)
        shift, scale = latents.mean().item(), latents.std().item()
    bank = LatentBank(encoder, rng, shift, scale)
    started = time.time()
    while len(bank.scenes) < args.bank:
        bank.grow(32)
    print(f"{args.bank} latents in {time.time() - started:.0f} s", flush=True)

    signal = alphas_cumprod()
    weight = MIN_SNR_GAMMA * (1 - signal) / signal
    weight = weight.clamp(max=1.0)  # min(SNR, γ) / SNR, for ε-prediction
    started = last_report = time.time()
    step, running = 0, 0.0
    while (progress := done + (time.time() - started) / (60 * args.minutes)) < 1:
        bank.grow(args.grow)
        scenes, z = bank.draw(args.batch)
        texts = ["" if rng.random() < EMPTY_PROMPTS else random_prompt(scene, rng) for scene in scenes]
        t = torch.randint(TRAIN_STEPS, (args.batch,))
        noise = torch.randn_like(z)
        a = signal[t].view(-1, 1, 1, 1)
        x = (a.sqrt() * z + (1 - a).sqrt() * noise).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = model(x, t, tokens(texts))
        loss = ((predicted.float() - noise).square().mean(dim=(1, 2, 3)) * weight[t]).mean()
        loss.backward()
        optimizer.step(cosine(progress, warmup=0.01))
        average.update_parameters(model)
        step, running = step + 1, 0.99 * running + 0.01 * loss.item()
        if time.time() - last_report > 60:
            last_report = time.time()
            print(f"{100 * progress:.0f} %  step {step} ({(time.time() - started) / step:.3f} s)  loss {running:.4f}  "
                  f"bank {len(bank.scenes)}", flush=True)
            save(checkpoint, model, average, optimizer, progress, shift, scale, tokens)
    save(checkpoint, model, average, optimizer, 1.0, shift, scale, tokens)
    print(f"finished after {step} steps")


def moving_average(average: torch.Tensor, current: torch.Tensor, updates: torch.Tensor) -> torch.Tensor:
    """Exponential moving average that looks back over a tenth of the steps so far, and 1000 at most: the first,
    random weights are soon forgotten."""
    decay = min(0.999, (1 + int(updates)) / (10 + int(updates)))
    return torch.lerp(average, current.to(average.dtype), 1 - decay)


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def save(path: Path, model, average, optimizer, progress, shift, scale, tokens) -> None:
    """Writes the checkpoint whole or not at all."""
    temporary = path.with_suffix(".tmp")
    torch.save({
        "model": model.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict(),
        "progress": progress, "shift": shift, "scale": scale, "tokens": tokens.used,
    }, temporary)
    temporary.replace(path)


if __name__ == "__main__":
    main()
