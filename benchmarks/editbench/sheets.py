"""Contact sheets: the best, median and worst edit of EI2 next to the source, the truth and other methods.

The runner saves the frames of every edit as one strip, a PNG with all frames side by side.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.drawing import titled_sheet
from miniature.scene import render
from miniature.world import SIZE

from .clips import Clip, Edit
from .methods import COMPARED, METHODS, OURS, REFERENCE
from .rows import IDENTITY, case, count_text, known, select

ALWAYS = (REFERENCE, OURS)
OPTIONAL = [method.name for method in COMPARED if method.control or method.key_frame]  # shown if they were measured
COLUMNS = 8  # frames shown of a clip


def strip_name(row: dict) -> str:
    """The file name of a row's strip, e.g. `tune-a-video_equal_line-1_shape-color_0.png`."""
    slug = lambda text: re.sub(r"[^a-z0-9]+", "-", str(text).lower()).strip("-")
    return "_".join(slug(row[name]) for name in IDENTITY) + ".png"


def save_strip(frames: torch.Tensor, path: Path) -> None:
    """Writes frames `f 3 h w` in 0..1 as one picture of height h and width f * w. Makes the folder if needed."""
    pixels = (frames.detach().cpu().float().clamp(0, 1) * 255).round().byte()
    strip = pixels.permute(2, 0, 3, 1).reshape(pixels.shape[2], -1, 3).contiguous()  # h (f w) 3
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(strip.numpy()).save(path, optimize=True)


def load_strip(path: Path, width: int = SIZE) -> torch.Tensor:
    """A strip's frames, `f 3 h w` in 0..1, each `width` pixels wide. Raises ValueError if the
    strip's width is not a multiple of that."""
    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB")))
    height, total = pixels.shape[:2]
    if total % width:
        raise ValueError(f"{path} is {total} pixels wide: a strip of {width}-pixel frames has a multiple of that.")
    return pixels.reshape(height, -1, width, 3).permute(1, 3, 0, 2).float() / 255


def best_median_worst(rows: list[dict], budget: str = "equal") -> dict[str, dict]:
    """EI2's rows of the highest, median (the upper of two) and lowest PSNR. Raises ValueError without rows."""
    ranked = [row for row in select(rows, method=OURS, budget=budget) if known(row, "psnr")]
    if not ranked:
        raise ValueError(f"There are no rows of {OURS} at budget {budget!r} with psnr to rank.")
    ranked.sort(key=lambda row: -row["psnr"])
    return {"best": ranked[0], "median": ranked[(len(ranked) - 1) // 2], "worst": ranked[-1]}


def find_edit(clips: Iterable[Clip], row: dict) -> tuple[Clip, Edit]:
    """A row's clip and edit. Raises ValueError if the clips do not contain them."""
    for clip in clips:
        for edit in clip.edits:
            if (clip.name, edit.kind) == (row["clip"], row["edit"]):
                return clip, edit
    raise ValueError(f"No clip {row['clip']!r} with an edit {row['edit']!r} is in this split: use the rows' own split.")


def case_sheet(
    rows: list[dict], row: dict, clips: Iterable[Clip], strips: Path, file: Path, methods=ALWAYS, title: str = ""
) -> None:
    """Writes one case's sheet: source, truth and each method's edit, under a title with both prompts.

    `row`: any row of the case at the budget to show; `rows`: of all methods; `strips`: their folder. Raises ValueError
    if the row of a method in `methods`, or any strip, is missing.
    """
    clip, edit = find_edit(clips, row)
    pictures = {"source": render(clip.views), "truth": render(edit.views)}
    for method in sorted({*methods, *OPTIONAL}, key=list(METHODS).index):
        shown = [other for other in select(rows, method=method, budget=row["budget"]) if same_case(other, row)]
        if shown:
            strip = strips / strip_name(shown[0])
            if not strip.exists():
                raise ValueError(f"{strip} is missing: run the benchmark with its frames kept.")
            pictures[label(shown[0])] = load_strip(strip)
        elif method not in OPTIONAL:
            raise ValueError(f"{method} has no row for {' / '.join(map(str, case(row)))} at {row['budget']!r}.")
    prompts = f"source: {clip.source_prompt}      target: {edit.target_prompt}"
    titled_sheet(pictures, COLUMNS, file, title, prompts)


def same_case(row: dict, other: dict) -> bool:
    """Whether two rows are of the same clip, edit and seed. A method that is not tuned has one row for all seeds."""
    method = METHODS.get(row["method"])
    tuned = method is None or method.tuned
    return case(row)[:2] == case(other)[:2] and (row["seed"] == other["seed"] or not tuned)


def label(row: dict) -> str:
    """A method's name and scores, in lines that fit the sheet's margin."""
    name = textwrap.fill(row["method"], 14, break_on_hyphens=False)
    success = f"success {100 * row['success']:.0f} %\n" if known(row, "success") else ""
    shares = f"{success}kept {100 * row['preservation']:.0f} %"
    psnr = f"\n{row['psnr']:.1f} dB" if known(row, "psnr") else ""
    return f"{name}\n{shares}{psnr}"


def write(rows: list[dict], clips: Iterable[Clip], strips: Path, folder: Path, prefix: str) -> list[Path]:
    """Writes `<prefix>_best.png`, `_median` and `_worst` into the folder, by EI2's PSNR at the equal budget. Returns
    the files."""
    ranked = [case(row) for row in select(rows, method=OURS, budget="equal") if known(row, "psnr")]
    total, files = count_text(ranked), []
    for place, row in best_median_worst(rows).items():
        files.append(folder / f"{prefix}_{place}.png")
        kind = row["edit"].replace("_", " + ")
        title = f"{place.capitalize()} of {total}, by {OURS}'s PSNR, budget equal: {row['clip']}, {kind}, "
        title += f"seed {row['seed']}"
        if row["frames"] > COLUMNS:
            title += f" ({COLUMNS} of {row['frames']} frames)"
        case_sheet(rows, row, clips, strips, files[-1], title=title)
    return files
