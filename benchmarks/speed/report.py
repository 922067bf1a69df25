"""The results in words, one table and plots, from a results file alone:

    python -m benchmarks.speed.report benchmarks/results/speed_cpu.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from . import attention, plots, steps

COLUMNS = ("what", "method", "frames", "pixels", "dtype", "recomputes", "seconds", "TFLOP/s", "of peak", "peak memory",
           "speed to literal", "memory to literal")  # fmt: skip
NOTES = """\
* *Seconds*: of one step, the median of several; those compared took turns, so that what else the machine did hits all
  of them alike. The first step of every turn is not counted.
* *TFLOP/s*: the arithmetic of matrix products, convolutions and attentions that a step needs, counted on the real step,
  over its time. What is computed a second time to save memory (*recomputes*) is not counted.
* *Of peak*: {peak}
* *Peak memory*: what the step adds to what was there before, the model's weights included. For the attentions alone:
  besides queries, keys and values.
* *To literal*: how many times as fast as the literal way of the same rows, and with what part of its memory. For the
  steps that is Tune-A-Video as its public script does it (`benchmarks/speed/literal.py`); *encoded once* is the same
  without encoding the clip in every step. For FFAM it is its definition, with every frame's own copy of all keys and
  values. *{plain}* is one call of torch's attention without any copies.
"""


def write(file: Path) -> list[str]:
    """Writes the report and the plots beside the results; returns what is worth printing."""
    results = json.loads(file.read_text(encoding="utf-8"))
    rows, stem = results["rows"], file.with_suffix("")
    pictures = {
        "growth": ("Growth with frames and resolution", plots.growth),
        "attention": ("Attentions alone", plots.attentions),
    }
    shown = []
    for name, (title, draw) in pictures.items():
        picture = Path(f"{stem}_{name}.png")
        if draw(results, picture):
            shown.append(f"![{title}]({picture.name})\n")
    text = "\n".join([
        f"# Speed: {results['model']} on {results['machine']}\n",
        f"`{results['command']}`, {threads(results)}torch {results['torch']}, Python {results['python']}."
        + ("" if results["complete"] else " Not everything was measured.") + "\n",
        *(f"* {sentence}" for sentence in findings(results)),
        "",
        *shown,
        table(rows),
        "",
        NOTES.format(peak=peak(results), plain=attention.PLAIN),
    ])  # fmt: skip
    written = file.with_suffix(".md")
    written.write_text(text, encoding="utf-8")
    return [*findings(results), f"Written: {file}, {written}"]


def threads(results: dict) -> str:
    return "" if any(row["dtype"] == "fp16" for row in results["rows"]) else f"torch's threads: {results['threads']}, "


def peak(results: dict) -> str:
    """What the shares are shares of."""
    measured = [row for row in results["rows"] if row["what"] == "matrix product"]
    found = ", ".join(f"{row['tflops']:.3g} TFLOP/s in {row['dtype']}" for row in measured)
    if results["datasheet_tflops"]:
        return f"of the data sheet's {results['datasheet_tflops']:g} TFLOP/s (large matrix products here: {found})."
    return f"of what large matrix products reach here, {found}."


def findings(results: dict) -> list[str]:
    """What the rows say, in sentences."""
    rows, said = results["rows"], []
    base = dict(zip(("frames", "width", "height"), results["base"]))
    size = " × ".join(str(length) for length in results["base"])
    for row in rows:
        if row["what"] == "tune" and row["method"] == steps.OURS and row["ratio_to_literal"]:
            if all(row[key] == value for key, value in base.items()):
                how = "recomputing activations" if row["checkpointing"] else "keeping activations"
                memory = f" at {row['memory_to_literal']:.2f} of its memory" if row["memory_to_literal"] else ""
                said.append(
                    f"A tuning step at {size} in {row['dtype']}, {how}: {row['ratio_to_literal']:.2f} times the "
                    f"literal one's speed{memory}, {row['share_of_peak']:.0%} of the peak."
                )
    once = next((row for row in rows if row["method"] == steps.ENCODED_ONCE and row["ratio_to_literal"]), None)
    if once:
        said.append(f"The literal step without encoding would be {once['ratio_to_literal']:.2f} times as fast.")
    ffam = [row for row in rows if row["what"] == "attention" and row["method"] == attention.FFAM and row["seconds"]]
    slowest = max((row.get("time_to_plain", 0) for row in ffam), default=0)
    if slowest:
        said.append(f"FFAM takes at most {slowest:.2f} times as long as torch's attention with as many multiply-adds.")
    if len(ffam) > 1 and ffam[0]["peak_bytes"]:
        more, memory = (ffam[-1][key] / ffam[0][key] for key in ("frames", "peak_bytes"))
        said.append(f"With {more:.3g} times the frames FFAM needs {memory:.3g} times the memory.")
    return said


def table(rows: list[dict]) -> str:
    """Markdown, a line per row."""
    right = ["---" if name in COLUMNS[:2] else "---:" for name in COLUMNS]
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'|'.join(right)}|"]
    return "\n".join(lines + [f"| {' | '.join(cells(row))} |" for row in rows])


def cells(row: dict) -> list[str]:
    """A row as text, by `COLUMNS`."""
    show = lambda value, form: "" if value is None else form.format(value)
    pixels = row["width"] and f"{row['width']} × {row['height']}"
    recomputes = {True: "yes", False: "no", None: ""}[row["checkpointing"]]
    seconds = row.get("note") or show(row["seconds"], "{:.4g}")
    return [
        row["what"], row["method"], show(row["frames"], "{}"), pixels or "", row["dtype"], recomputes, seconds,
        show(row["tflops"], "{:.3g}"), show(row["share_of_peak"], "{:.0%}"), show(row["peak_bytes"], "{}") and
        _memory(row["peak_bytes"]), show(row["ratio_to_literal"], "{:.2f}"), show(row["memory_to_literal"], "{:.2f}"),
    ]  # fmt: skip


def line(row: dict) -> str:
    """A row for the terminal."""
    return "  ".join(cell for cell in cells(row) if cell)


def _memory(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


if __name__ == "__main__":
    print(*write(Path(sys.argv[1])), sep="\n")
