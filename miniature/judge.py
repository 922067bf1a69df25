"""The judge: a small classifier that says what a picture of the miniature's world shows.

It was trained on renders alone (`train_judge.py`), never on pictures of the miniature model, so it can tell how often
the model draws what its prompt says, and whether an edit changed what it should.
"""

from __future__ import annotations

import random
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from .architecture import PIXELS, WEIGHTS
from .world import COLORS, PATTERNS, SHAPES, random_scene, render

CLASSES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "color": tuple(COLORS),
    "pattern": PATTERNS,
    "background": tuple(COLORS),
}
FILE = WEIGHTS / "judge.safetensors"
WIDTHS = (32, 64, 96, 128)  # channels at 32, 16, 8 and 4 pixels


class ResidualBlock(torch.nn.Module):
    """Two 3 x 3 convolutions around a shortcut, `b i h w` -> `b o h w`."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.norm1 = torch.nn.GroupNorm(8, channels_in)
        self.conv1 = torch.nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = torch.nn.GroupNorm(8, channels_out)
        self.conv2 = torch.nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.shortcut = torch.nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv1(F.relu(self.norm1(x)))
        h = self.conv2(F.relu(self.norm2(h)))
        return self.shortcut(x) + h


class Judge(torch.nn.Module):
    """Four answers about each picture: shape, object colour, background pattern, background colour.

    `CLASSES`: the possible answers to each question; `WIDTHS`: channels; `FILE`: the weights."""

    CLASSES, WIDTHS, FILE = CLASSES, WIDTHS, FILE

    def __init__(self):
        super().__init__()
        widths = self.WIDTHS
        self.stem = torch.nn.Conv2d(3, widths[0], 4, stride=2, padding=1)
        pairs = zip((widths[0], *widths), widths)
        self.blocks = torch.nn.ModuleList([ResidualBlock(i, o) for i, o in pairs])
        self.norm = torch.nn.GroupNorm(8, widths[-1])
        self.heads = torch.nn.ModuleDict(
            {name: torch.nn.Linear(2 * widths[-1], len(classes)) for name, classes in self.CLASSES.items()}
        )

    @classmethod
    def load(cls, path: Path | None = None) -> Judge:
        """The trained judge in float32 on the CPU. Raises FileNotFoundError if its weights are missing."""
        path = path or cls.FILE
        if not Path(path).exists():
            raise FileNotFoundError(
                f"The judge's weights are missing at {path}: run `python -m miniature.train_judge`."
            )
        judge = cls()
        judge.load_state_dict({key: value.float() for key, value in load_file(path).items()})
        return judge.eval().requires_grad_(False)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits per attribute, `f classes`, for `images` `f 3 128 128` in 0..1."""
        x = self.stem(F.avg_pool2d(images * 2 - 1, 2))
        for i, block in enumerate(self.blocks):
            x = block(F.avg_pool2d(x, 2) if i else x)
        x = F.relu(self.norm(x))
        x = torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1)
        return {name: head(x) for name, head in self.heads.items()}

    @torch.no_grad()
    def probabilities(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Probabilities per attribute, `f classes` in the order of `CLASSES`, for `images` `f 3 h w` in 0..1.

        Pictures of other sizes are resized to 128 x 128. Raises ValueError if `images` has another layout.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"The judge needs pictures laid out as `f 3 h w`, but got {tuple(images.shape)}.")
        images = images.float()
        if images.shape[-2:] != (PIXELS, PIXELS):
            images = F.interpolate(images, size=(PIXELS, PIXELS), mode="bilinear", antialias=True)
        return {name: logits.softmax(dim=1) for name, logits in self(images.clamp(0, 1)).items()}

    def see(self, images: torch.Tensor) -> list[dict[str, str]]:
        """What each of the pictures `f 3 h w` in 0..1 shows, e.g. `{"shape": "star", "color": "red", "pattern":
        "plain", "background": "blue"}`."""
        best = {name: p.argmax(dim=1).tolist() for name, p in self.probabilities(images).items()}
        classes = self.CLASSES
        return [{name: classes[name][best[name][i]] for name in classes} for i in range(len(images))]

    @staticmethod
    def examples(rng: random.Random, count: int) -> tuple[torch.Tensor, list[dict[str, str]]]:
        """Random renders `count 3 128 128` and the right answers."""
        scenes = [random_scene(rng) for _ in range(count)]
        return render(scenes), [{name: getattr(scene, name) for name in CLASSES} for scene in scenes]
