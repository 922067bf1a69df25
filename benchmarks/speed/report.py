"""The results in words, one table and plots, from a results file alone:

python -m benchmarks.speed.report benchmarks/results/speed_cpu.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.results import markdown_table, memory_text

from . import attention, plots, steps

COLUMNS = ["what", "method", "frames", "pixels", "dtype", "recomputes", "seconds", "TFLOP/s", "of peak", "peak memory"]
COLUMNS += ["speed to literal", "memory to literal"]
PICTURES = {
    "growth": ("Growth with frames and resolution", plots.growth),
    "attention": ("Attentions alone", plots.attentions),
}
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
    """Writes the report and the plots beside the results. Returns lines to print."""
    results = json.loads(file.read_text(encoding="utf-8"))
    sentences, shown, written = findings(results), [], file.with_suffix(".md")
    for name, (title, draw) in PICTURES.items():
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
    """What the shares are shares of."""
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
        if (row["what"], row["method"]) == ("tune", steps.OURS) and at_base and row["ratio_to_literal"]:
            how = "recomputing activations" if row["checkpointing"] else "keeping activations"
            memory = f" at {row['memory_to_literal']:.2f} of its memory" if row["memory_to_literal"] else ""
            sentences.append(
                f"A tuning step at {size} in {row['dtype']}, {how}: {row['ratio_to_literal']:.2f} times the "
                f"literal one's speed{memory}, {row['share_of_peak']:.0%} of the peak."
            )
    for row in [row for row in rows if row["method"] == steps.ENCODED_ONCE and row["ratio_to_literal"]][:1]:
        sentences.append(f"The literal step without encoding would be {row['ratio_to_literal']:.2f} times as fast.")
    ffam = [row for row in rows if (row["what"], row["method"]) == ("attention", attention.FFAM) and row["seconds"]]
    if slowest := max((row.get("time_to_plain", 0) for row in ffam), default=0):
        text = f"FFAM takes at most {slowest:.2f} times as long as torch's attention with as many multiply-adds."
        sentences.append(text)
    if len(ffam) > 1 and ffam[0]["peak_bytes"]:
        more, memory = (ffam[-1][key] / ffam[0][key] for key in ("frames", "peak_bytes"))
        sentences.append(f"With {more:.3g} times the frames FFAM needs {memory:.3g} times the memory.")
    return sentences


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


if __name__ == "__main__":
    print(*write(Path(sys.argv[1])), sep="\n")
