"""The demo's measurements and pictures, computed from the frames the server wrote as PNG."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ei2.measures import psnr
from miniature.judge import Judge
from miniature.world import Scene, prompt

LABEL_WIDTH = 150  # pixels, left of the contact sheet's rows
GAP = 4  # pixels between pictures
ATTRIBUTES = ("shape", "color", "pattern", "background")


def decode(pictures: list[bytes]) -> torch.Tensor:
    """Encoded pictures of one size -> `f 3 h w`, 0..1."""
    arrays = [np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")) for picture in pictures]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255


def measure(clips: dict[str, torch.Tensor], scenes: list[Scene]) -> dict:
    """What the report says of the pictures. `clips`: source, reconstruction, edit, truth, each `f 3 h w` in 0..1;
    `scenes`: what the right edit shows, one per frame."""
    judge = Judge.load()
    seen = {name: judge.see(clips[name]) for name in ("source", "edit")}
    wanted = [{key: getattr(scene, key) for key in ATTRIBUTES} for scene in scenes]
    right = {key: sum(s[key] == w[key] for s, w in zip(seen["edit"], wanted)) for key in ATTRIBUTES}
    return {
        "frames": len(scenes),
        "reconstruction_psnr_db": psnr(clips["reconstruction"], clips["source"]),
        "edit_psnr_against_truth_db": psnr(clips["edit"], clips["truth"]),
        "unedited_source_psnr_against_truth_db": psnr(clips["source"], clips["truth"]),
        "frames_with_everything_right": sum(s == w for s, w in zip(seen["edit"], wanted)),
        "frames_right_by_attribute": right,
        "wanted": sentence(wanted[0]),
        "judge_sees": {name: [sentence(one) for one in answers] for name, answers in seen.items()},
    }


def sentence(seen: dict[str, str]) -> str:
    """What the judge saw, in words."""
    return prompt(Scene(**{key: seen[key] for key in ATTRIBUTES}))


def contact_sheet(rows: dict[str, torch.Tensor], file: Path) -> None:
    """Writes a picture with one row per clip (`f 3 h w`, 0..1), one column per frame, the rows' names on the left."""
    frames = max(len(clip) for clip in rows.values())
    height, width = next(iter(rows.values())).shape[-2:]
    size = (LABEL_WIDTH + frames * (width + GAP), len(rows) * (height + GAP) + GAP)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=18)
    for row, (name, clip) in enumerate(rows.items()):
        top = GAP + row * (height + GAP)
        draw.text((10, top + height / 2), name, fill="black", font=font, anchor="lm")
        for column, picture in enumerate(clip):
            pixels = (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
            sheet.paste(Image.fromarray(pixels), (LABEL_WIDTH + column * (width + GAP), top))
    sheet.save(file)
