"""The results in words, one table and plots, from a results file alone:

python -m benchmarks.speed.report benchmarks/results/speed_cpu.json
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.drawing import TEXT, new_figure, save_figure
from benchmarks.results import markdown_table, memory_text

from . import attention
from .steps import ENCODED_ONCE, LITERAL, MEANT, MEANT_ONCE, OURS

COLUMNS = ["what", "method", "frames", "pixels", "dtype", "recomputes", "seconds", "TFLOP/s", "of peak", "peak memory"]
COLUMNS += ["speed to literal", "memory to literal"]
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
CHANGES = {  # of the literal step, by method
    ENCODED_ONCE: "without encoding",
    MEANT: "with all blocks trained",
    MEANT_ONCE: "without encoding and with all blocks trained",
}
VALUES = {"seconds": "seconds", "peak_bytes": "peak memory, GiB"}
NOTES = """\
* *Seconds*: of one step, the median of several; those compared took turns, so that other work on the machine affects
  all of them alike. The first step of every turn is not counted.
* *TFLOP/s*: the arithmetic of matrix products, convolutions and attentions that a step needs, counted on the real step,
  over its time. What is computed a second time to save memory (*recomputes*) is not counted.
* *Of peak*: {peak}
* *Peak memory*: what the step adds to what was there before, the model's weights included. For the attentions alone:
  besides queries, keys and values.
* *To literal*: how many times as fast as the literal way of the same rows, and with what part of its memory. For the
  steps that is Tune-A-Video as its public script does it (`benchmarks/speed/literal.py`). As shipped it trains the
  middle and up blocks only; *as meant* trains all blocks; *encoded once* does not encode the clip in every step. For
  FFAM it is its definition, with every frame's own copy of all keys and values. *{plain}* is one call of torch's
  attention without any copies.
"""


def write(file: Path) -> list[str]:
    """Writes the report and the plots next to the results. Returns lines to print."""
    results = json.loads(file.read_text(encoding="utf-8"))
    sentences, shown, written = findings(results), [], file.with_suffix(".md")
    pictures = {"growth": ("Growth with frames and resolution", growth), "attention": ("Attentions alone", attentions)}
    for name, (title, draw) in pictures.items():
        picture = file.with_name(f"{file.stem}_{name}.png")
        if draw(results, picture):
            shown.append(f"![{title}]({picture.name})\n")
    on_gpu = any(row["dtype"] == "fp16" for row in results["rows"])
    threads = "" if on_gpu else f"torch's threads: {results['threads']}, "
    about = f"`{results['command']}`, {threads}torch {results['torch']}, Python {results['python']}."
    text = "\n".join(
        [
            f"# Speed: {results['model']} on {results['machine']}\n",
            about + ("" if results["complete"] else " Not everything was measured.") + "\n",
            *(f"{note}\n" for note in results.get("notes", ())),
            *(f"* {sentence}" for sentence in sentences),
            "",
            *shown,
            markdown_table(COLUMNS, [cells(row) for row in results["rows"]], texts=2),
            "",
            NOTES.format(peak=peak(results), plain=attention.PLAIN),
        ]
    )
    written.write_text(text, encoding="utf-8")
    return [*sentences, f"Written: {file}, {written}"]


def peak(results: dict) -> str:
    """The peak that the shares refer to."""
    products = [row for row in results["rows"] if row["what"] == "matrix product"]
    measured = ", ".join(f"{row['tflops']:.3g} TFLOP/s in {row['dtype']}" for row in products)
    if results["datasheet_tflops"]:
        return f"of the data sheet's {results['datasheet_tflops']:g} TFLOP/s (large matrix products here: {measured})."
    return f"of what large matrix products reach here, {measured}."


def findings(results: dict) -> list[str]:
    """What the rows show, in sentences."""
    rows, sentences = results["rows"], []
    size = " × ".join(str(length) for length in results["base"])
    for row in rows:
        at_base = [row["frames"], row["width"], row["height"]] == results["base"]
        if (row["what"], row["method"]) == ("tune", OURS) and at_base and row["ratio_to_literal"]:
            how = "recomputing activations" if row["checkpointing"] else "keeping activations"
            memory = f" at {row['memory_to_literal']:.2f} of its memory" if row["memory_to_literal"] else ""
            share = f", {row['share_of_peak']:.0%} of the peak" if row["share_of_peak"] else ""
            sentences.append(
                f"A tuning step at {size} in {row['dtype']}, {how}: {row['ratio_to_literal']:.2f} times the "
                f"literal one's speed{memory}{share}."
            )
    for method, change in CHANGES.items():
        for row in [row for row in rows if row["method"] == method and row["ratio_to_literal"]][:1]:
            sentences.append(f"The literal step {change} would be {row['ratio_to_literal']:.2f} times as fast.")
    of_ffam = lambda what: [row for row in rows if (row["what"], row["method"]) == (what, attention.FFAM)]
    for what, how in (("attention", ""), ("attention and gradient", ", forward and backward,")):
        if slowest := max((row.get("time_to_plain", 0) for row in of_ffam(what)), default=0):
            times = f"takes at most {slowest:.2f} times as long as torch's attention with as many multiply-adds."
            sentences.append(f"FFAM{how} {times}")
    ffam = [row for row in of_ffam("attention") if row["seconds"]]
    if len(ffam) > 1 and ffam[0]["peak_bytes"]:
        more, memory = (ffam[-1][key] / ffam[0][key] for key in ("frames", "peak_bytes"))
        sentences.append(f"With {more:.3g} times the frames FFAM needs {memory:.3g} times the memory.")
    return sentences + powers(results)


def cells(row: dict) -> list[str]:
    """A row as text, by `COLUMNS`."""
    show = lambda name, form: "" if row[name] is None else form.format(row[name])
    return [
        row["what"],
        row["method"],
        show("frames", "{}"),
        f"{row['width']} × {row['height']}" if row["width"] else "",
        row["dtype"],
        {True: "yes", False: "no", None: ""}[row["checkpointing"]],
        row.get("note") or show("seconds", "{:.4g}"),
        show("tflops", "{:.3g}"),
        show("share_of_peak", "{:.0%}"),
        "" if row["peak_bytes"] is None else memory_text(row["peak_bytes"]),
        show("ratio_to_literal", "{:.2f}"),
        show("memory_to_literal", "{:.2f}"),
    ]


def line(row: dict) -> str:
    """A row for the terminal."""
    return "  ".join(cell for cell in cells(row) if cell)


def own_precision(rows: list[dict]) -> str:
    """The pack's own choice of precision on the machine: the first row's."""
    return next((row["dtype"] for row in rows if row["what"] == "tune"), "")


def step_of(row: dict) -> tuple:
    """The kind of step, as `STEPS` names it."""
    return row["what"], row["method"], row["checkpointing"]


def pixels(row: dict) -> int:
    return row["width"] * row["height"]


def series(results: dict) -> tuple[list[dict], list[dict]]:
    """The rows of the steps over frames, at the base's size, and over pixels, at the number of frames that has the most
    sizes."""
    _, width, height = results["base"]
    precision = own_precision(results["rows"])
    rows = [row for row in results["rows"] if row["seconds"] and step_of(row) in STEPS]
    rows = [row for row in rows if (row["what"], row["method"]) != ("tune", OURS) or row["dtype"] == precision]
    sizes = {}
    for row in rows:
        sizes.setdefault(row["frames"], set()).add(row["width"])
    few = max(sizes, key=lambda count: len(sizes[count]), default=0)
    over_frames = [row for row in rows if (row["width"], row["height"]) == (width, height)]
    return over_frames, [row for row in rows if row["frames"] == few]


def powers(results: dict) -> list[str]:
    """How the seconds of EI2's and the literal steps grow, as the power of frames and of pixels that fits best."""
    sentences = []
    for rows, x, name in zip(series(results), (lambda row: row["frames"], pixels), ("frames", "pixels a frame")):
        parts = []
        for step in STEPS:
            own = [row for row in rows if step_of(row) == step]
            if step[1] in (OURS, LITERAL) and len({x(row) for row in own}) > 2:
                power = np.polyfit([math.log(x(row)) for row in own], [math.log(row["seconds"]) for row in own], 1)[0]
                parts.append(f"{STEPS[step][0]} {power:.2f}")
        if parts:
            sentences.append(f"Powers of the {name} by which the seconds grow: {', '.join(parts)}.")
    return sentences


def growth(results: dict, file: Path) -> bool:
    """Seconds and memory of the steps, see `series`."""
    _, width, height = results["base"]
    over_frames, over_pixels = series(results)
    if not over_frames:
        return False
    few = over_pixels[0]["frames"]
    columns = (
        (over_frames, lambda row: row["frames"], "{frames}", "frames", f"{width} × {height} pixels"),
        (over_pixels, pixels, "{width}²", "pixels a frame", f"{few} frames"),
    )
    title = f"Steps: {results['model']} on {results['machine']}"
    figure, panels = new_figure(2, (8.6, 6.2), title, rows=2)
    for i, axes in enumerate(panels):
        own, x, tick, label, subtitle = columns[i % 2]
        field = list(VALUES)[i // 2]
        for step, look in STEPS.items():
            _line(axes, [row for row in own if step_of(row) == step], x, field, *look)
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


if __name__ == "__main__":
    print(*write(Path(sys.argv[1])), sep="\n")
