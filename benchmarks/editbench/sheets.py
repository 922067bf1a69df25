"""Contact sheets: the best, median and worst edit of a method beside the source, the truth and other methods.

The runner saves the frames of every edit as one strip, a PNG with all frames side by side.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from benchmarks.editbench.clips import Clip, Edit
from benchmarks.editbench.methods import COMPARED, METHODS, OURS, REFERENCE
from benchmarks.editbench.rows import IDENTITY, case, known, select
from devtools.results import contact_sheet
from miniature.world import SIZE, render

ALWAYS = (REFERENCE, OURS)
IF_THERE = [method.name for method in COMPARED if method.control]  # shown where they were measured
COLUMNS = 8  # frames shown of a clip, evenly spread, the first and the last among them
TITLE_HEIGHT = 62  # pixels
PALETTE = 256  # colours of a saved sheet: a third of the bytes, no visible difference in flat pictures


def slug(text: str) -> str:
    """A name as part of a file name: lower case, everything but letters and digits as single hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", str(text).lower()).strip("-")


def strip_name(row: dict) -> str:
    """The file name of a row's strip: method, budget, clip, edit and seed, e.g.
    `tune-a-video_equal_line-1_shape-color_0.png`."""
    return "_".join(slug(row[name]) for name in IDENTITY) + ".png"


def save_strip(frames: torch.Tensor, path: Path) -> None:
    """Writes frames `f 3 h w` in 0..1 as one picture of height h and width f * w. Makes the folder if need be."""
    pixels = (frames.detach().cpu().float().clamp(0, 1) * 255).round().byte()
    strip = pixels.permute(2, 0, 3, 1).reshape(pixels.shape[2], -1, 3).contiguous()  # h (f w) 3
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(strip.numpy()).save(path, optimize=True)


def load_strip(path: Path, width: int = SIZE) -> torch.Tensor:
    """A strip's frames, `f 3 h w` in 0..1; `width`: one frame's, in pixels. Raises ValueError for a picture whose
    width is not a multiple of that."""
    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB")))
    height, total = pixels.shape[:2]
    if total % width:
        raise ValueError(f"{path} is {total} pixels wide: a strip of {width}-pixel frames has a multiple of that.")
    return pixels.reshape(height, -1, width, 3).permute(1, 3, 0, 2).float() / 255


def ranked(rows: list[dict], method: str = OURS, budget: str = "equal", by: str = "psnr") -> list[dict]:
    """A method's rows at a budget, best first. `by`: the field that ranks them, more is better. Raises ValueError
    where there are none."""
    found = [row for row in select(rows, method=method, budget=budget) if known(row, by)]
    if not found:
        raise ValueError(f"There are no rows of {method} at budget {budget!r} with {by} to rank.")
    return sorted(found, key=lambda row: -row[by])


def best_median_worst(rows: list[dict], method: str = OURS, budget: str = "equal", by: str = "psnr") -> dict[str, dict]:
    """The rows of a method's best, median (the upper of two) and worst case; see `ranked`."""
    order = ranked(rows, method, budget, by)
    return {"best": order[0], "median": order[(len(order) - 1) // 2], "worst": order[-1]}


def find_edit(clips: Iterable[Clip], row: dict) -> tuple[Clip, Edit]:
    """The clip and the edit that a row is about. Raises ValueError where the clips hold neither."""
    for clip in clips:
        for edit in clip.edits:
            if (clip.name, edit.kind) == (row["clip"], row["edit"]):
                return clip, edit
    raise ValueError(f"No clip {row['clip']!r} with an edit {row['edit']!r} is in this split: use the rows' own split.")


def case_sheet(rows: list[dict], row: dict, clips: Iterable[Clip], frames: Path, file: Path,
               methods: tuple[str, ...] = ALWAYS, title: str = "") -> None:
    """Writes one case's sheet: source, truth and each method's edit, under a title with both prompts.

    `row`: any row of the case at the wanted budget; `rows`: those of all methods; `frames`: the folder of the strips.
    Methods of `IF_THERE` are shown, too, if they have a row. Raises ValueError where another method's row, or any
    strip, is missing.
    """
    clip, edit = find_edit(clips, row)
    pictures = {"source": render(list(clip.scenes)), "truth": render(list(edit.target_scenes))}
    for method in sorted({*methods, *IF_THERE}, key=list(METHODS).index):
        found = [other for other in select(rows, method=method, budget=row["budget"]) if same_case(other, row)]
        if not found and method in IF_THERE:
            continue
        if not found:
            raise ValueError(f"{method} has no row for {' / '.join(map(str, case(row)))} at {row['budget']!r}.")
        strip = Path(frames) / strip_name(found[0])
        if not strip.exists():
            raise ValueError(f"{strip} is missing: run the benchmark with its frames kept.")
        pictures[label(found[0])] = load_strip(strip)
    pictures = {name: spread(pictures[name]) for name in pictures}
    contact_sheet(pictures, file)
    add_title(file, title, f"source: {clip.source_prompt}      target: {edit.target_prompt}")


def same_case(row: dict, other: dict) -> bool:
    """Whether two rows are of the same clip, edit and seed; what is not tuned is the same for all seeds."""
    method = METHODS.get(row["method"])
    by_chance = method is None or method.tuned
    return case(row)[:2] == case(other)[:2] and (row["seed"] == other["seed"] or not by_chance)


def label(row: dict) -> str:
    """A method's name and scores, in lines that fit the sheet's margin."""
    name = textwrap.fill(row["method"], 14, break_on_hyphens=False)
    return (f"{name}\nsuccess {100 * row['success']:.0f} %\nkept {100 * row['preservation']:.0f} %\n"
            f"{row['psnr']:.1f} dB")


def spread(pictures: torch.Tensor, columns: int = COLUMNS) -> torch.Tensor:
    """At most `columns` of the pictures, evenly spread."""
    if len(pictures) <= columns:
        return pictures
    return pictures[torch.linspace(0, len(pictures) - 1, columns).round().long()]


def add_title(file: Path, title: str, subtitle: str) -> None:
    """Puts two lines of text above a picture and saves it with a palette."""
    sheet = Image.open(file).convert("RGB")
    fonts = [ImageFont.load_default(size=size) for size in (20, 17)]
    text_width = round(max(font.getlength(text) for font, text in zip(fonts, (title, subtitle)))) + 20
    page = Image.new("RGB", (max(sheet.width, text_width), sheet.height + TITLE_HEIGHT), "white")
    page.paste(sheet, (0, TITLE_HEIGHT))
    draw = ImageDraw.Draw(page)
    draw.text((10, 20), title, fill="black", font=fonts[0], anchor="lm")
    draw.text((10, 46), subtitle, fill="#444444", font=fonts[1], anchor="lm")
    page.quantize(PALETTE, dither=Image.Dither.NONE).save(file, optimize=True)


def write(rows: list[dict], clips: Iterable[Clip], frames: Path, folder: Path, prefix: str,
          methods: tuple[str, ...] = ALWAYS, of: str = OURS, budget: str = "equal",
          by: str = "psnr") -> list[Path]:
    """Writes `<prefix>_best.png`, `_median` and `_worst` into the folder: the cases that rank so for one method
    (`of`) by one field (`by`). Returns the files."""
    total = len(ranked(rows, of, budget, by))
    files = []
    for place, row in best_median_worst(rows, of, budget, by).items():
        files.append(Path(folder) / f"{prefix}_{place}.png")
        title = f"{place.capitalize()} of {total} edits by {of}'s {by.replace('psnr', 'PSNR')}, budget {budget}: " \
                f"{row['clip']}, {row['edit'].replace('_', ' + ')}, seed {row['seed']}"
        if row["frames"] > COLUMNS:
            title += f" ({COLUMNS} of {row['frames']} frames)"
        case_sheet(rows, row, clips, frames, files[-1], methods, title)
    return files
