"""Trains the miniature's UNet and text encoder together, on latents of rendered pictures.

    python -m miniature.train_unet --minutes 90

The first start begins with the bundled weights, or with `--fresh` from random ones. ε-prediction on SD's noise
schedule; most noise levels of a batch are those at which forms are decided, and levels with small losses count for
more (the square root of uncertainty weighting, Karras et al., CVPR 2024); exponential moving average of the weights.
The VAE's encoder is slow, so a bank of latents is encoded once, and a few pictures are replaced in each step. Progress
is saved every few minutes; the next start resumes from it and trains for its own `--minutes`. `--cool` lets the
learning rate fall to 0 during this start, for the last one.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.optim.swa_utils import AveragedModel

from . import host_classes, looks, scene, things
from .architecture import BETA_END, BETA_START, HOST_SCALE, TRAIN_STEPS, UNET, WEIGHTS
from .optim import Optimizer, clock, rate, save_whole
from .places import PLACES
from .scene import View, random_prompt, random_view, render
from .world import COLORS, PATTERNS, SHAPES

from comfy.sd1_clip import SD1Tokenizer

FORM, FORM_SHARE = (300, 850), 0.75  # timesteps in which forms are decided, and their share of the training
BINS = 50  # of noise levels, each with a typical loss
SHAPES_SHARE = 0.75  # of the pictures: shapes turn by any angle, which takes longer to learn than upright things
HARD, HARD_SHARE = ("square", "triangle", "heart", "star"), 0.75  # drawn more often, and their share of the shapes
EMPTY_PROMPTS = 0.1  # share trained without a prompt, for classifier-free guidance


def timesteps(count: int) -> torch.Tensor:
    """Timesteps spread evenly over all noise levels, more densely where forms are decided, `count`."""
    first, last = FORM
    inside = round(FORM_SHARE * count)
    outside = torch.arange(TRAIN_STEPS)
    outside = outside[(outside < first) | (outside >= last)]
    spread = lambda n: (torch.arange(n) + torch.rand(n)) / max(n, 1)
    within = (first + spread(inside) * (last - first)).long()
    return torch.cat([within, outside[(spread(count - inside) * len(outside)).long().clamp(max=len(outside) - 1)]])


def is_shape(view: View) -> bool:
    """Whether the view is one of the world of shapes on patterns."""
    return view.place in PATTERNS and view.actors[0].kind in SHAPES


def alphas_cumprod() -> torch.Tensor:
    """SD's cumulative signal share ᾱ per timestep, `1000`."""
    beta = torch.linspace(BETA_START**0.5, BETA_END**0.5, TRAIN_STEPS, dtype=torch.float64) ** 2
    return (1 - beta).cumprod(0).float()


def vocabulary(kinds: Sequence[str] = things.NAMES) -> list[str]:
    """Texts that together hold every word of prompts about things of these kinds."""
    words = (*COLORS, *kinds, *SHAPES, *PATTERNS)
    articles = [f"{'an' if word[0] in 'aeiou' else 'a'} {word}" for word in words]
    places = [scene.where(View((), place)) for place in PLACES]
    look_words = [words.format("") for phrasings in looks.IN_WORDS.values() for words in phrasings]
    plain = [phrasing.format(objects="and", where="on background") for phrasing in scene.PHRASINGS]
    blank = dict.fromkeys(("objects", "ground", "bare", "bare_ground"), "")
    on_patterns = [phrasing.format(**blank) for phrasing in scene.ON_PATTERNS]
    return ["", *articles, *places, *look_words, *plain, *on_patterns]


class Tokens:
    """The host's SD1 tokenizer with its token ids mapped to the few rows that the miniature's prompts use.

    `used`: the token ids of a training that has already started; default: all that prompts can contain.
    """

    def __init__(self, used: list[int] | None = None):
        self.tokenizer = SD1Tokenizer()
        self.cache: dict[str, list[int]] = {}
        self.used = used or sorted({token for text in vocabulary() for token in self._raw(text)})
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
    """Views with their latents at unit variance, renewed while the training runs; at most `size` of them."""

    def __init__(self, encoder, rng: random.Random, size: int, shift: float, scale: float):
        self.encoder, self.rng, self.size, self.shift, self.scale = encoder, rng, size, shift, scale
        self.views: list[View] = []
        self.latents: list[torch.Tensor] = []
        self.oldest = 0

    @torch.no_grad()
    def grow(self, count: int) -> None:
        """Encodes `count` random views; when the bank is full they replace the oldest."""
        views = [random_view(self.rng, shapes=SHAPES_SHARE) for _ in range(count)]
        device = next(self.encoder.parameters()).device
        pictures = render(views).to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            latents = self.encoder(pictures).float().cpu()
        for view, latent in zip(views, (latents - self.shift) / self.scale):
            if len(self.views) < self.size:
                self.views.append(view)
                self.latents.append(latent)
            else:
                self.views[self.oldest], self.latents[self.oldest] = view, latent
                self.oldest = (self.oldest + 1) % self.size

    def draw(self, count: int) -> tuple[list[View], torch.Tensor]:
        """Random views and their latents `count 4 16 16`."""
        kinds = [], [], []  # things, easy shapes, hard shapes
        for i, view in enumerate(self.views):
            kinds[is_shape(view) and 1 + (view.actors[0].kind in HARD)].append(i)
        easy = SHAPES_SHARE * (1 - HARD_SHARE)
        wanted = zip(kinds, (1 - SHAPES_SHARE, easy, SHAPES_SHARE - easy))
        present, shares = zip(*((kind, share) for kind, share in wanted if kind))
        index = [self.rng.choice(kind) for kind in self.rng.choices(present, shares, k=count)]
        return [self.views[i] for i in index], torch.stack([self.latents[i] for i in index])


class TextToImage(torch.nn.Module):
    """UNet and text encoder as one trainable: latents, timesteps, token rows -> predicted noise."""

    def __init__(self, rows: int):
        super().__init__()
        self.unet = host_classes.build_unet(UNET)
        self.text = host_classes.build_text_encoder(rows)

    def forward(self, x, t, tokens):
        context = self.text(tokens)[0]
        options = {"optimized_attention_override": host_classes.differentiable_attention}
        return self.unet(x, t, context, transformer_options=options)

    def begin_with_bundled(self, tokens: Tokens) -> None:
        """Takes over the bundled miniature's UNet and its words."""
        unet, text = (
            {name: weight.float() for name, weight in load_file(WEIGHTS / f"{part}.safetensors").items()}
            for part in ("unet", "text_encoder")
        )
        self.unet.load_state_dict(unet)
        rows, known = text.pop("token_rows"), text.pop("tokens").long().tolist()
        table = self.text.text_model.embeddings.token_embedding.weight.data
        for row, token in zip(rows, known):
            if token in tokens.row:
                table[tokens.row[token]] = row
        text["text_model.embeddings.token_embedding.weight"] = table
        self.text.load_state_dict(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=90, help="computing time of this start")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--cool", action="store_true", help="end with this start: the learning rate falls to nothing")
    parser.add_argument("--fresh", action="store_true", help="a first start begins with random weights")
    parser.add_argument("--bank", type=int, default=1024, help="latents encoded before the first step")
    parser.add_argument("--bank-size", type=int, default=16384, help="latents kept at most")
    parser.add_argument("--grow", type=int, default=4, help="latents renewed per step")
    parser.add_argument("--vae", type=Path, help="a training's checkpoint; default: the bundled autoencoder")
    parser.add_argument("--run", type=Path, default=Path("training/unet"), help="folder for checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    vae = host_classes.load_vae(args.vae)
    encoder = vae.taesd_encoder.requires_grad_(False).to(args.device, memory_format=torch.channels_last)
    args.run.mkdir(parents=True, exist_ok=True)
    checkpoint, bank_file = args.run / "checkpoint.pt", args.run / "bank.pt"
    state = torch.load(checkpoint, map_location="cpu") if checkpoint.exists() else None
    own_vae = args.vae and str(args.vae.resolve())
    if state and state.get("vae") != own_vae:
        parser.error(
            f"This training learns the latents of {state.get('vae') or 'the bundled autoencoder'}: name it as --vae."
        )
    first = state["steps"] if state else 0
    torch.manual_seed(args.seed + first)
    rng = random.Random(args.seed + 1 + first)
    tokens = Tokens(state and state["tokens"])
    model = TextToImage(len(tokens.used))
    if state is None and not args.fresh:
        model.begin_with_bundled(tokens)
    model.to(args.device, memory_format=torch.channels_last)
    forward = torch.compile(model)
    optimizer = Optimizer(model, args.lr)
    average = AveragedModel(model, avg_fn=moving_average)
    print(
        f"UNet {count(model.unet) / 1e6:.2f} M, text encoder {count(model.text) / 1e6:.2f} M parameters, "
        f"{len(tokens.used)} tokens, from step {first}",
        flush=True,
    )
    if state:
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        shift, scale = state["shift"], state["scale"]
    elif args.vae:
        probe = LatentBank(encoder, random.Random(7), 32, 0.0, 1.0)
        probe.grow(32)
        latents = torch.stack(probe.latents)
        shift, scale = latents.mean().item(), latents.std().item()
    else:
        scale = vae.vae_scale.item() / HOST_SCALE
        shift = -vae.vae_shift.item() * vae.vae_scale.item()
    bank = LatentBank(encoder, rng, args.bank_size, shift, scale)
    if state and bank_file.exists():
        saved = torch.load(bank_file, weights_only=False)  # written below, by this script
        bank.views, bank.latents, bank.oldest = saved["views"], list(saved["latents"].float()), saved["oldest"]
    started = clock(args.device)
    while len(bank.views) < args.bank:
        bank.grow(32)
    print(f"{len(bank.views)} latents after {clock(args.device) - started:.0f} s", flush=True)

    signal = alphas_cumprod().to(args.device)
    typical = torch.tensor(state and state.get("typical") or [1.0] * BINS, device=args.device)  # losses
    started = last_report = clock(args.device)
    step, running = first, 0.0

    def save() -> None:
        save_whole(
            checkpoint,
            {
                "model": model.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
                "steps": step,
                "vae": own_vae,
                "shift": shift,
                "scale": scale,
                "tokens": tokens.used,
                "typical": typical.tolist(),
            },
        )
        save_whole(bank_file, {"views": bank.views, "latents": torch.stack(bank.latents).half(), "oldest": bank.oldest})

    while (progress := (clock(args.device) - started) / (60 * args.minutes)) < 1:
        bank.grow(args.grow)
        views, z = bank.draw(args.batch)
        z = z.to(args.device)
        texts = ["" if rng.random() < EMPTY_PROMPTS else random_prompt(view, rng) for view in views]
        t = timesteps(args.batch).to(args.device)
        noise = torch.randn_like(z)
        a = signal[t].view(-1, 1, 1, 1)
        x = (a.sqrt() * z + (1 - a).sqrt() * noise).contiguous(memory_format=torch.channels_last)
        with torch.autocast(args.device, torch.bfloat16):
            predicted = forward(x, t, tokens(texts).to(args.device))
        losses = (predicted.float() - noise).square().mean(dim=(1, 2, 3))
        bins = t * BINS // TRAIN_STEPS
        typical.index_put_((bins,), typical[bins].lerp(losses.detach(), 0.02))
        loss = (losses * (typical.mean() / typical[bins]).sqrt()).mean()
        loss.backward()
        optimizer.step(rate(step - first, progress if args.cool else 0.0, warmup=100))
        average.update_parameters(model)
        step += 1
        running += (loss.item() - running) * max(0.01, 1 / (step - first))
        if clock(args.device) - last_report > 240:
            last_report = clock(args.device)
            print(
                f"step {step} ({(clock(args.device) - started) / (step - first):.3f} s)  loss {running:.4f}  "
                f"bank {len(bank.views)}",
                flush=True,
            )
            save()
    save()
    print(f"stopped after step {step}", flush=True)


def moving_average(average: torch.Tensor, current: torch.Tensor, updates: torch.Tensor) -> torch.Tensor:
    """Exponential moving average over a tenth of the steps so far, at most 1000, so
    the first weights are soon forgotten."""
    decay = min(0.999, (1 + int(updates)) / (10 + int(updates)))
    return torch.lerp(average, current.to(average.dtype), 1 - decay)


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


if __name__ == "__main__":
    main()
