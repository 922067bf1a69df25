"""Plots of time and memory over frames and resolution. Each function writes one PNG and returns whether there was
anything to draw."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.drawing import TEXT, new_figure, save_figure

from . import attention
from .steps import LITERAL, OURS

# Okabe and Ito's colours, which colour-blind readers can tell apart
STEPS = {  # by kind of step, method and recomputation
    ("tune", LITERAL, True): ("literal tuning", "#767676", "X--"),
    ("tune", OURS, True): ("EI2 tuning, recomputing", "#E69F00", "D-"),
    ("tune", OURS, False): ("EI2 tuning", "#D55E00", "o-"),
    ("edit", OURS, None): ("EI2 edit", "#0072B2", "s-"),
    ("invert", OURS, None): ("EI2 inversion", "#009E73", "^-"),
}
ATTENTIONS = {
    attention.DENSE: ("#CC79A7", "P-"),
    attention.LITERAL: ("#767676", "X--"),
    attention.FFAM: ("#D55E00", "o-"),
    attention.PLAIN: ("#000000", ":"),
    attention.SCA: ("#0072B2", "s-"),
    attention.OWN: ("#009E73", "^-"),
}
VALUES = {"seconds": "seconds", "peak_bytes": "peak memory, GiB"}


def growth(results: dict, file: Path) -> bool:
    """Seconds and memory of the steps: over frames at the base's size, and over pixels at the number of frames that has
    the most sizes."""
    frames, width, height = results["base"]
    key = lambda row: (row["what"], row["method"], row["checkpointing"])
    # the pack's own choice of precision is the first row's
    precision = next((row["dtype"] for row in results["rows"] if row["what"] == "tune"), "")
    rows = [row for row in results["rows"] if row["seconds"] and key(row) in STEPS]
    rows = [row for row in rows if (row["what"], row["method"]) != ("tune", OURS) or row["dtype"] == precision]
    if not rows:
        return False
    sizes = {}
    for row in rows:
        sizes.setdefault(row["frames"], set()).add(row["width"])
    few = max(sizes, key=lambda count: len(sizes[count]))
    over_frames = [row for row in rows if (row["width"], row["height"]) == (width, height)]
    over_pixels = [row for row in rows if row["frames"] == few]
    columns = (
        (over_frames, lambda row: row["frames"], "{frames}", "frames", f"{width} × {height} pixels"),
        (over_pixels, lambda row: row["width"] * row["height"], "{width}²", "pixels a frame", f"{few} frames"),
    )
    title = f"Steps: {results['model']} on {results['machine']}"
    figure, panels = new_figure(2, (8.6, 6.2), title, rows=2)
    for i, axes in enumerate(panels):
        own, x, tick, label, subtitle = columns[i % 2]
        field = list(VALUES)[i // 2]
        for step, look in STEPS.items():
            _line(axes, [row for row in own if key(row) == step], x, field, *look)
        ticks = {x(row): tick.format(**row) for row in own}
        axes.set_xticks(list(ticks), list(ticks.values()))
        axes.set(xlabel=label, ylabel=VALUES[field] + (" a step" if field == "seconds" else ""), title=subtitle)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
    return _finish(figure, panels, file)


def attentions(results: dict, file: Path) -> bool:
    """Seconds and memory of the attentions over frames, both axes logarithmic: a line's slope is the power."""
    rows = [row for row in results["rows"] if row["what"] == "attention" and row["seconds"]]
    if not rows:
        return False
    size = f"{rows[0]['width']} × {rows[0]['height']} pixels"
    title = f"Attentions of the finest blocks, {size}: {results['machine']}"
    figure, panels = new_figure(2, (8.6, 3.9), title)
    counts = sorted({row["frames"] for row in rows})
    for axes, field in zip(panels, VALUES):
        for kind, look in ATTENTIONS.items():
            own = [row for row in rows if row["method"] == kind and row[field]]
            _line(axes, own, lambda row: row["frames"], field, kind, *look)
        axes.set(xscale="log", yscale="log", xlabel="frames", ylabel=VALUES[field])
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.minorticks_off()
    return _finish(figure, panels, file)


def _line(axes, rows: list[dict], x: Callable[[dict], float], field: str, name: str, color: str, style: str) -> None:
    rows, scale = sorted(rows, key=x), 2**-30 if field == "peak_bytes" else 1
    if rows:
        values = [row[field] * scale for row in rows]
        axes.plot([x(row) for row in rows], values, style, color=color, label=name, markersize=4, linewidth=1.6)


def _finish(figure, panels: list, file: Path) -> bool:
    """Adds one legend for all panels and writes the file."""
    names = {}
    for axes in panels:
        names |= dict(zip(*reversed(axes.get_legend_handles_labels())))
    figure.legend(names.values(), names.keys(), loc="outside right center", fontsize=TEXT, frameon=False)
    return save_figure(figure, file)
