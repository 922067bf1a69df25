"""Turns finished checkpoints into the weights the node loads: fp16 safetensors.

    python -m miniature.export --unet training/unet/checkpoint.pt --vae training/vae/checkpoint.pt

The weights are written to `training/export`. To bundle them, copy them to `miniature/weights`.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from . import host_classes  # sets the host up first
from .architecture import HOST_SCALE
from .scene import random_view, render
from .things import LEARNED
from .train_unet import vocabulary

from comfy.taesd.taesd import TAESD


@torch.no_grad()
def preview_factors(vae: TAESD, shift: float, scale: float) -> dict[str, list]:
    """The best linear map from latents to colours in -1..1, for the host's live previews: `factors` 4 x 3, `bias` 3."""
    rng = random.Random(3)
    pictures = render([random_view(rng) for _ in range(48)])
    latents = (vae.taesd_encoder(pictures) - shift) / scale
    colors = F.avg_pool2d(pictures, 8) * 2 - 1
    x = torch.cat([latents, torch.ones_like(latents[:, :1])], dim=1).movedim(1, -1).flatten(0, -2)
    y = colors.movedim(1, -1).flatten(0, -2)
    solution = torch.linalg.lstsq(x, y).solution
    return {"factors": solution[:4].tolist(), "bias": solution[4].tolist()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vae", type=Path, help="the one the UNet was trained on; default: the bundled one")
    parser.add_argument("--unet", type=Path, default=Path("training/unet/checkpoint.pt"))
    parser.add_argument("--output", type=Path, default=Path("training/export"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)

    state = torch.load(args.unet, map_location="cpu")
    shift, scale = state["shift"], state["scale"]
    average = {name.removeprefix("module."): weight for name, weight in state["average"].items()}
    unet = {name.removeprefix("unet."): weight for name, weight in average.items() if name.startswith("unet.")}
    text = {name.removeprefix("text."): weight for name, weight in average.items() if name.startswith("text.")}
    text["token_rows"] = text.pop("text_model.embeddings.token_embedding.weight")

    vae = host_classes.load_vae(args.vae)
    # the host multiplies the VAE's latents by its scale and expects unit variance after that
    vae.vae_scale.data.fill_(scale * HOST_SCALE)
    vae.vae_shift.data.fill_(-shift / (scale * HOST_SCALE))

    half = lambda tensors: {name: tensor.half().contiguous() for name, tensor in tensors.items()}
    preview = {"latent_preview": json.dumps(preview_factors(vae, shift, scale))}
    save_file(half(unet), args.output / "unet.safetensors", metadata=preview)
    words = sorted(set(re.findall("[a-z]+", " ".join(vocabulary(LEARNED)))))
    tokens = {"tokens": torch.tensor(state["tokens"], dtype=torch.int32)}
    save_file({**half(text), **tokens}, args.output / "text_encoder.safetensors", metadata={"words": " ".join(words)})
    save_file(half(vae.state_dict()), args.output / "vae.safetensors")
    for path in sorted(args.output.glob("*.safetensors")):
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
