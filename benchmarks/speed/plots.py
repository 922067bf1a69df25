"""Plots of time and memory over frames and resolution. Every function writes one PNG and returns whether there was
anything to draw."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.drawing import INK, TEXT, new_figure, save

from . import attention
from .steps import LITERAL, OURS

# Okabe and Ito's colours, which colour-blind readers can tell apart
STEPS = {
    ("tune", LITERAL, True): ("literal tuning", "#767676", "X--"),
    ("tune", OURS, True): ("EI2 tuning, recomputing", "#E69F00", "D-"),
    ("tune", OURS, False): ("EI2 tuning", "#D55E00", "o-"),
    ("edit", OURS, None): ("EI2 edit", "#0072B2", "s-"),
    ("invert", OURS, None): ("EI2 inversion", "#009E73", "^-"),
}
ATTENTIONS = {
    attention.DENSE: ("#CC79A7", "P-"), attention.LITERAL: ("#767676", "X--"), attention.FFAM: ("#D55E00", "o-"),
    attention.PLAIN: ("#000000", ":"), attention.SCA: ("#0072B2", "s-"), attention.OWN: ("#009E73", "^-"),
}  # fmt: skip
VALUES = {"seconds": "seconds", "peak_bytes": "peak memory, GiB"}


def growth(results: dict, file: Path) -> bool:
    """Seconds and memory of the steps: over frames at the base's size, and over pixels at the fewest frames there."""
    frames, width, height = results["base"]
    rows = [row for row in results["rows"] if row["seconds"] and (row["what"], row["method"], row["checkpointing"]) in
            STEPS and not (row["what"] == "tune" and row["method"] == OURS and row["dtype"] != _precision(results))]
    if not rows:
        return False
    by_size = {}
    for row in rows:
        by_size.setdefault(row["frames"], set()).add(row["width"])
    few = max(by_size, key=lambda count: len(by_size[count]))
    over_frames = [row for row in rows if (row["width"], row["height"]) == (width, height)]
    over_pixels = [row for row in rows if row["frames"] == few]
    figure, panels = new_figure(2, (8.6, 6.2), rows=2)
    pixels = lambda row: row["width"] * row["height"]
    count = lambda row: row["frames"]
    for column, (own, x, label, title) in enumerate((
        (over_frames, count, "frames", f"{width} × {height} pixels"),
        (over_pixels, pixels, "pixels a frame", f"{few} frames"),
    )):  # fmt: skip
        ticks = {x(row): str(row["frames"]) if column == 0 else f"{row['width']}²" for row in own}
        for line, field in enumerate(VALUES):
            axes = panels[2 * line + column]
            for key, (name, color, style) in STEPS.items():
                found = [row for row in own if (row["what"], row["method"], row["checkpointing"]) == key]
                _line(axes, found, x, field, name, color, style)
            axes.set_xticks(list(ticks), list(ticks.values()))
            axes.set_xlabel(label)
            axes.set_ylabel(VALUES[field] + (" a step" if field == "seconds" else ""))
            axes.set_title(title, fontsize=TEXT, color=INK)
            axes.set_xlim(left=0)
            axes.set_ylim(bottom=0)
    return _finish(figure, panels, f"Steps: {results['model']} on {results['machine']}", file)


def attentions(results: dict, file: Path) -> bool:
    """Seconds and memory of the attentions over frames, both axes logarithmic: a straight line's slope is the power."""
    rows = [row for row in results["rows"] if row["what"] == "attention" and row["seconds"]]
    if not rows:
        return False
    figure, panels = new_figure(2, (8.6, 3.9))
    counts = sorted({row["frames"] for row in rows})
    for axes, field in zip(panels, VALUES):
        for kind, (color, style) in ATTENTIONS.items():
            own = [row for row in rows if row["method"] == kind and row[field]]
            _line(axes, own, lambda row: row["frames"], field, kind, color, style)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.minorticks_off()
        axes.set_xlabel("frames")
        axes.set_ylabel(VALUES[field])
    size = f"{rows[0]['width']} × {rows[0]['height']} pixels"
    return _finish(figure, panels, f"Attentions of the finest blocks, {size}: {results['machine']}", file)


def _precision(results: dict) -> str:
    """What the pack tunes in by itself: the first row's."""
    return next((row["dtype"] for row in results["rows"] if row["what"] == "tune"), "")


def _line(axes, rows: list[dict], x: Callable[[dict], float], field: str, name: str, color: str, style: str) -> None:
    rows = sorted(rows, key=x)
    scale = 2**-30 if field == "peak_bytes" else 1
    if rows:
        values = [row[field] * scale for row in rows]
        axes.plot([x(row) for row in rows], values, style, color=color, label=name, markersize=4, linewidth=1.6)


def _finish(figure, panels: list, title: str, file: Path) -> bool:
    figure.suptitle(title, fontsize=TEXT + 1, color=INK)
    names = {}
    for axes in panels:
        names |= dict(zip(*reversed(axes.get_legend_handles_labels())))
    figure.legend(names.values(), names.keys(), loc="outside right center", fontsize=TEXT, frameon=False)
    return save(figure, file)
