"""EditBench's report: Markdown tables, a summary and plots, made from a results file's rows alone.

    python -m benchmarks.editbench.report benchmarks/results/editbench_test.json

writes `editbench_test.md` and `editbench_test_*.png` beside that file; with `--strips` contact sheets, too.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from benchmarks.editbench import plots, sheets
from benchmarks.editbench.clips import clips_of
from benchmarks.editbench.methods import BLEND, COMPARED, CONTROL, CONTROL_CHOICES, OURS, REFERENCE
from benchmarks.editbench.rows import (
    budgets_of,
    case,
    load,
    methods_of,
    pairs_of,
    select,
    settings_text,
    shared_settings,
    values_of,
)
from benchmarks.editbench.statistics import Interval, paired_bootstrap, paired_bootstrap_ratio

TOLERANCE = 0.02  # of success times preservation
DESCRIBED = {
    "equal": "Equal budget: the same steps, learning rate and guidance for every method",
    "best": "Best budget: every method with the settings it did best with on the development split",
}


@dataclass(frozen=True)
class Column:
    """One measure in a table. `scale`: from a row's unit to the shown one; `higher`: whether more is better, None
    where neither is; `compare`: by "difference" or "ratio" with the reference, None for a mean alone."""

    field: str
    title: str
    digits: int
    higher: bool | None
    compare: str | None = "difference"
    scale: float = 1.0

    def heading(self) -> str:
        return self.title + {True: " ↑", False: " ↓", None: ""}[self.higher]


QUALITY = (
    Column("success", "edit success, %", 1, True, scale=100),
    Column("preservation", "preservation, %", 1, True, scale=100),
    Column("psnr", "PSNR, dB", 2, True),
    Column("psnr_object", "PSNR object, dB", 2, True),
    Column("psnr_background", "PSNR background, dB", 2, True),
    Column("flicker", "flicker", 4, False, "ratio"),
    Column("centroid_error", "centroid error, px", 2, False),
)
SHIFT = (
    Column("mean_shift", "mean shift", 3, False, "ratio"),
    Column("log_variance_shift", "log-std shift", 3, False, "ratio"),
    Column("module_mean_shift", "module's own mean shift", 3, False, "ratio"),
    Column("module_log_variance_shift", "module's own log-std shift", 3, False, "ratio"),
    Column("reconstruction_psnr", "reconstruction PSNR, dB", 2, True),
    Column("source_psnr", "PSNR of the source sampled beside it, dB", 2, True),
)
GOAL = tuple(c for c in QUALITY if c.field in ("success", "preservation", "psnr", "psnr_background", "flicker"))
METHODS_COMPARED = [method.name for method in COMPARED]
CONTROLLED = [method.name for method in COMPARED if method.control]
TRIED_CONTROLS = [method.name for method in CONTROL_CHOICES]
COST = (
    Column("seconds_tune", "tune, s", 1, False, None),
    Column("seconds_invert", "invert, s", 1, False, None),
    Column("seconds_edit", "edit, s", 1, False, None),
    Column("peak_bytes", "peak memory, MB", 0, False, None, scale=1e-6),
)


class Comparison(NamedTuple):
    """A method's difference to the reference, or ratio, over the `pairs` of cases both were measured on."""

    interval: Interval
    pairs: int
    ratio: bool

    def verdict(self, higher: bool) -> str:
        """"better", "worse", or "undecided" where the interval holds no difference."""
        neutral = 1.0 if self.ratio else 0.0
        if self.interval.low <= neutral <= self.interval.high:
            return "undecided"
        return "better" if (self.interval.estimate > neutral) == higher else "worse"

    def text(self, digits: int) -> str:
        """`+6.2 [+1.9, +10.4]`, or of a ratio `×0.62 [0.55, 0.70]`."""
        estimate, low, high = self.interval
        if self.ratio:
            return f"×{estimate:.2f} [{low:.2f}, {high:.2f}]"
        return f"{estimate:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def compare(rows: list[dict], reference: list[dict], column: Column) -> Comparison | None:
    """One method's rows against the reference's at the same budget. None for fewer than two clips in common, and for
    a ratio where the reference is zero on a clip."""
    values, others, clips = pairs_of(rows, reference, column.field)
    if column.compare is None or len(set(clips)) < 2:
        return None
    if column.compare == "ratio":
        sums = {clip: sum(o for o, c in zip(others, clips) if c == clip) for clip in set(clips)}
        if min(sums.values()) <= 0:
            return None
        return Comparison(paired_bootstrap_ratio(values, others, clips), len(values), True)
    scaled = Interval(*(column.scale * x for x in paired_bootstrap(values, others, clips)))
    return Comparison(scaled, len(values), False)


def markdown(rows: list[dict], reference: str = REFERENCE, level: int = 2) -> str:
    """Per budget: the settings, a table of quality and one of shift and cost, a row per method, with intervals of the
    difference (or ratio) to the reference. `level`: of the headings."""
    parts = []
    for budget in budgets_of(rows):
        own = select(rows, budget=budget)
        by_method = {name: select(own, method=name) for name in methods_of(own)}
        parts += [
            f"{'#' * level} {DESCRIBED.get(budget, f'Budget {budget}')}",
            all_settings(by_method),
            table(by_method, reference, QUALITY),
            table(by_method, reference, SHIFT + COST),
        ]
    return "\n\n".join(parts) + "\n"


def table(by_method: dict[str, list[dict]], reference: str, columns: tuple[Column, ...]) -> str:
    """One table; bold where the interval holds no difference to the reference. `n`: edits, and in brackets how many
    of them the reference has too, where that is not all. Without the columns that no row knows."""
    columns = tuple(c for c in columns if any(c.field in row for rows in by_method.values() for row in rows))
    lines = [
        "| method | n | " + " | ".join(column.heading() for column in columns) + " |",
        "|---" * 2 + "|--:" * len(columns) + "|",
    ]
    for method, rows in by_method.items():
        others = by_method.get(reference, [])
        shared = len({case(row) for row in rows} & {case(row) for row in others})
        n = str(len(rows)) if not others or shared == len(rows) else f"{len(rows)} ({shared})"
        cells = [cell(rows, [] if method == reference else others, column) for column in columns]
        lines.append(f"| {method} | {n} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(rows: list[dict], reference: list[dict], column: Column) -> str:
    """A method's mean and its difference to the reference, e.g. `78.1 (**+6.2 [+1.9, +10.4]**)`."""
    values, _ = values_of(rows, column.field)
    if not values:
        return "–"
    text = f"{column.scale * fmean(values):.{column.digits}f}"
    found = compare(rows, reference, column)
    return text if found is None else f"{text} ({difference(found, column)})"


def difference(found: Comparison | None, column: Column) -> str:
    """A comparison in a table: bold where the interval holds no "no difference", a dash where there is none."""
    if found is None:
        return "–"
    text = found.text(column.digits)
    return text if found.verdict(column.higher) == "undecided" else f"**{text}**"


def all_settings(by_method: dict[str, list[dict]]) -> str:
    """The settings of each method, or of all where they are the same."""
    texts: dict[str, list[str]] = {}
    for method, rows in by_method.items():
        for text in dict.fromkeys(settings_text(shared_settings(row)) or "not recorded" for row in rows):
            texts.setdefault(text, []).append(method)
    if len(texts) == 1:
        return f"All methods: {next(iter(texts))}."
    return "\n".join(f"* {'; '.join(methods)}: {text}" for text, methods in texts.items())


def ablations(rows: list[dict], level: int = 3) -> str:
    """The same tables for EI2 and its ablations (`changed_parts`), with EI2 as the reference. Empty where the rows hold
    no ablation."""
    changed = changed_parts(rows)
    budgets = {row["budget"] for row in changed}
    own = [row for row in rows if row["method"] == OURS and row["budget"] in budgets]
    return markdown(own + changed, reference=OURS, level=level) if changed else ""


def changed_parts(rows: list[dict]) -> list[dict]:
    """The rows of EI2 with one part changed: what is neither compared nor another value of its control."""
    return [row for row in rows if row["method"] not in METHODS_COMPARED + TRIED_CONTROLS]


def tried_controls(rows: list[dict]) -> list[dict]:
    """The rows of other values of EI2's control, and of EI2 itself at their budget."""
    tried = [row for row in rows if row["method"] in TRIED_CONTROLS]
    budgets = {row["budget"] for row in tried}
    return [row for row in rows if row["method"] == OURS and row["budget"] in budgets] + tried


def against_all(rows: list[dict], method: str, level: int = 3) -> str:
    """One method's difference (for flicker the ratio) to every other, in what is aimed at, a table per budget at
    which there are others to compare with. Empty without them."""
    parts = []
    for budget in budgets_of(select(rows, method=method)):
        own, lines = select(rows, method=method, budget=budget), []
        for other in [name for name in METHODS_COMPARED if name != method]:
            others = select(rows, method=other, budget=budget)
            shared = len({case(row) for row in own} & {case(row) for row in others})
            if shared:
                cells = [difference(compare(own, others, column), column) for column in GOAL]
                lines.append(f"| {other} | {shared} | " + " | ".join(cells) + " |")
        if lines:
            head = "| " + " | ".join(["against", "n", *(column.heading() for column in GOAL)]) + " |"
            rule = "|---" * 2 + "|--:" * len(GOAL) + "|"
            parts += [f"{'#' * level} {method}, budget {budget}", "\n".join([head, rule, *lines])]
    return "\n\n".join(parts)


def summary(rows: list[dict], method: str = OURS, reference: str = REFERENCE) -> str:
    """What the intervals say, a sentence or two per budget: where the method is better than the reference, where it
    is worse, and what they leave undecided."""
    lines = []
    for budget in budgets_of(rows):
        own, others = select(rows, budget=budget, method=method), select(rows, budget=budget, method=reference)
        said: dict[str, list[str]] = {"better": [], "worse": [], "undecided": []}
        for column in QUALITY + SHIFT:
            found = compare(own, others, column)
            if found is not None:
                said[found.verdict(column.higher)].append(f"{column.title.split(',')[0]} {found.text(column.digits)}")
        if any(said.values()):
            shared = {case(row) for row in own} & {case(row) for row in others}
            text = "; ".join(f"{verdict}: {', '.join(names)}" for verdict, names in said.items() if names)
            lines.append(f"* **{method} against {reference}, budget {budget}** ({len(shared)} edits of "
                         f"{len({clip for clip, *_ in shared})} clips): {text}.")
    return "\n".join(lines)


def criterion(rows: list[dict]) -> tuple[float, float]:
    """How good a setting is, from its rows on the development split: the mean over edits of success times preservation,
    and the mean PSNR to the right result.

    A product, because returning the source keeps everything and drawing a new clip can fulfil any prompt: each alone
    must score zero.
    """
    return fmean(row["success"] * row["preservation"] for row in rows), fmean(row["psnr"] for row in rows)


def best_of(scores: dict[str, tuple[float, float]]) -> str:
    """The name with the highest PSNR among those whose success times preservation is within `TOLERANCE` of the best:
    closer than that they cannot be told apart, since one frame of a dozen edits is a point."""
    highest = max(first for first, _ in scores.values())
    near = {name: psnr for name, (first, psnr) in scores.items() if first >= highest - TOLERANCE}
    return max(near, key=near.get)


def scores_of(rows: list[dict], method: str) -> dict[str, tuple[float, float]]:
    """A method's `criterion` by budget, on the edits that it was measured on at every budget.

    Raises ValueError for a method whose budgets share no edit.
    """
    own = select(rows, method=method)
    by_budget = {budget: select(own, budget=budget) for budget in budgets_of(own)}
    shared = set.intersection(*({case(row) for row in found} for found in by_budget.values()))
    if not shared:
        raise ValueError(f"The budgets of {method} have no edit in common: run them on the same clips.")
    return {b: criterion([row for row in found if case(row) in shared]) for b, found in by_budget.items()}


def chosen(rows: list[dict], methods: tuple[str, ...] = (OURS, REFERENCE)) -> dict[str, str]:
    """The budgets to choose, by `best_of`, from the development split's rows: each method's best, and under `equal`
    the best for all of them together, by the mean of their scores."""
    scores = {method: scores_of(rows, method) for method in methods}
    shared = [budget for budget in scores[methods[0]] if all(budget in found for found in scores.values())]
    means = {b: tuple(fmean(found[b][i] for found in scores.values()) for i in (0, 1)) for b in shared}
    return {**{method: best_of(found) for method, found in scores.items()}, "equal": best_of(means)}


def chosen_control(rows: list[dict]) -> dict[str, str]:
    """The values of EI2's control to choose, by `best_of`, without and with LocalBlend, from the development split's
    rows; empty where none were tried. On the edits that all were measured on."""
    found = {}
    for name, blend in ((CONTROL, False), (BLEND, True)):
        tried = {m.name: select(rows, method=m.name) for m in CONTROL_CHOICES if bool(m.control.blend) == blend}
        tried = {method: own for method, own in tried.items() if own}
        shared = set.intersection(*({case(row) for row in own} for own in tried.values())) if tried else set()
        if shared:
            scores = {m: criterion([row for row in own if case(row) in shared]) for m, own in tried.items()}
            found[name] = best_of(scores)
    return found


def page(rows: list[dict], title: str, pictures: dict[str, str], made: str = "") -> str:
    """The whole report. `pictures`: file names and captions, shown between summary and tables; `made`: how the rows
    were made."""
    parts = [
        f"# {title}",
        made,
        summary(rows),
        f"In brackets: the difference to {REFERENCE} (for flicker and shifts the ratio) on the same clip, edit and "
        "seed, with its 95 % bootstrap interval over clips; bold where the interval does not hold \"no difference\". "
        "The intervals are not corrected for their number. ↑: more is better, ↓: less is better. n: edits. "
        "Seconds are wall-clock, with other work beside: for orientation only. "
        "Bars and bands in the plots are intervals of each method's own mean: they may overlap where the paired "
        "difference is clear.",
        *(f"![{caption}]({name})" for name, caption in pictures.items()),
        markdown([row for row in rows if row["method"] in METHODS_COMPARED]),
    ]
    against = [text for text in (against_all(rows, method) for method in (CONTROL, BLEND)) if text]
    if against:
        said = f"The difference of {OURS} with control to every other method, or for flicker the ratio."
        parts += ["## With attention control", said, *against]
    changed = ablations(rows)
    if changed:
        parts += ["## Ablations", f"In brackets: the difference to {OURS}, or the ratio.", changed]
    tried = tried_controls(rows)
    if tried:
        said = f"\"control 0.2 / 0.5\": cross_replace 0.2, self_replace 0.5. In brackets: the difference to {OURS}."
        parts += ["## Values of the control", said, markdown(tried, reference=OURS, level=3)]
    return "\n\n".join(part.rstrip() for part in parts if part) + "\n"


def draw(rows: list[dict], stem: Path) -> dict[Path, str]:
    """Writes the plots `<stem>_*.png` that the rows have data for; returns them with a caption each."""
    compared = [row for row in rows if row["method"] in METHODS_COMPARED]
    alone = [row for row in compared if row["method"] not in CONTROLLED]  # control changes nothing in the model
    equal, best, most = select(compared, budget="equal"), select(compared, budget="best"), fullest(compared)
    wanted = [
        ("flicker_equal", plots.success_against_flicker, equal, "Edit success against flicker, equal budget"),
        ("flicker_best", plots.success_against_flicker, best, "Edit success against flicker, best budget"),
        ("background", plots.success_against_background, most[1],
         f"Edit success against the preserved background, {budget_text(most[0])}"),
        ("shift", plots.shift_per_block, select(alone, budget="equal"),
         "Covariate shift per transformer block, equal budget"),
        ("steps", plots.success_against_steps, alone, "Success and PSNR against tuning steps"),
    ]
    changed, tried = changed_parts(rows), tried_controls(rows)
    if changed:
        budget, own = fullest([row for row in rows if row["method"] == OURS] + changed)
        wanted.append(("ablations", plots.success_against_flicker, own, f"{OURS} with one part changed, {budget}"))
    if tried:
        budget, own = fullest(tried)
        wanted.append(("controls", plots.success_against_background, own, f"Values of {OURS}'s control, {budget}"))
    drawn = {}
    for name, plot, own, caption in wanted:
        file = stem.with_name(f"{stem.name}_{name}.png")
        if own and plot(own, file, caption):
            drawn[file] = caption
    return drawn


def fullest(rows: list[dict]) -> tuple[str, list[dict]]:
    """The budget at which the most methods were measured, and its rows."""
    budget = max(budgets_of(rows), key=lambda name: len(methods_of(select(rows, budget=name))), default="")
    return budget, select(rows, budget=budget)


def budget_text(budget: str) -> str:
    return f"{budget} budget" if budget in DESCRIBED else budget


def write(file: Path) -> list[Path]:
    """Writes a results file's report and plots beside it and returns what was written."""
    rows, stem = load(file), Path(file).with_suffix("")
    pictures = draw(rows, stem)
    report = stem.with_suffix(".md")
    title = "EditBench" + {"editbench_test": ", test split", "editbench_dev": ", development split"}.get(stem.name, "")
    captions = {picture.name: text for picture, text in pictures.items()}
    report.write_text(page(rows, title, captions, how_made(stem)), encoding="utf-8")
    return [report, *pictures]


def how_made(stem: Path) -> str:
    """The command and the machine, from the note that the runner leaves beside the rows; empty without it."""
    note = stem.with_name(f"{stem.name}_machine.json")
    if not note.exists():
        return ""
    return "\n".join(
        f"* Made by `{run['command']}` on {run['machine']}: {run['workers']} processes of {run['threads_per_worker']} "
        f"threads, torch {run['torch']}"
        for run in json.loads(note.read_text(encoding="utf-8"))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="the rows, written by the benchmark")
    parser.add_argument("--best", action="store_true", help="only print what to choose, as JSON")
    parser.add_argument("--strips", type=Path, metavar="FOLDER", help="the edited frames: writes contact sheets, too")
    args = parser.parse_args()
    try:
        if args.best:
            rows = load(args.file)
            print(json.dumps({**chosen(rows), **chosen_control(rows)}, indent=1))
            return
        written = write(args.file)
        if args.strips:
            rows = load(args.file)
            written += sheets.write(rows, clips_of(rows[0]["split"]), args.strips, args.file.parent, args.file.stem)
    except (OSError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    print(*written, sep="\n")


if __name__ == "__main__":
    main()
