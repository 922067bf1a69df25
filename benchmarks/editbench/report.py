"""EditBench's report: Markdown tables, a summary and plots, made from a results file's rows alone.

    python -m benchmarks.editbench.report benchmarks/results/editbench_test.json

writes `editbench_test.md` and `editbench_test_*.png` next to that file; with `--strips` also contact sheets.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.results import markdown_table
from ei2.wording import plural

from . import plots, sheets
from .choosing import chosen, chosen_control
from .clips import clips_of
from .methods import BLEND, COMPARED, CONTROL, CONTROL_CHOICES, DRAWN, KEY_FRAME, OURS, PER_FRAME, REFERENCE
from .rows import budgets_of, case, count_text, edits_of, load, methods_of, select
from .tables import COST, QUALITY, SHIFT, all_settings, compare, shared_cases, table

TITLES = {"editbench_test": "EditBench 2, test split", "editbench_dev": "EditBench 2, development split"}
DESCRIBED = {
    "equal": "Equal budget: the same steps, learning rate and guidance for every method",
    "best": "Best budget: every method with the settings it did best with on the development split",
}
METHODS_COMPARED = [method.name for method in COMPARED]
CONTROLLED = [method.name for method in COMPARED if method.control]
AFTERWARDS = [method.name for method in COMPARED if method.control or method.key_frame]  # they change no model
TRIED_CONTROLS = [method.name for method in CONTROL_CHOICES]
GOAL = [column for column in QUALITY if column.field not in ("psnr_object", "centroid_error")]
NOTES = f"""\
In brackets: the difference to {REFERENCE} (for flicker and shifts the ratio) on the same clip, edit and seed, with \
its 95 % bootstrap interval over clips; bold where the interval does not hold "no difference". The intervals are \
not corrected for their number. ↑: more is better, ↓: less is better. n: edits times seeds; means with another n \
are of other edits, and only what is in brackets can be compared. Seconds are CPU seconds (of the wall clock with a \
GPU), while other processes used the machine too; their median. What a method adds to its budget, such as null-text \
optimisation or a carried frame, is counted there. PSNR, background and flicker count the edits with one correct \
picture: where an edit changes the place, the source does not show where in the new place the camera stands. \
Agreement and centroid error count the edits that change only the object. Plots show the edits that all methods in \
them were measured on. Bars and bands in the plots are intervals of each method's own mean: they may overlap where \
the paired difference is clear."""


def markdown(rows: list[dict], reference: str = REFERENCE, level: int = 2) -> str:
    """Per budget: the settings, a table of quality and a table of shift and cost, each with a line per method and
    intervals of the difference (or ratio) to the reference. `level`: of the headings."""
    parts = []
    for budget in budgets_of(rows):
        own = select(rows, budget=budget)
        by_method = {name: select(own, method=name) for name in methods_of(own)}
        parts += [f"{'#' * level} {DESCRIBED.get(budget, f'Budget {budget}')}", all_settings(by_method)]
        parts += [table(by_method, reference, columns) for columns in (QUALITY, SHIFT + COST)]
    return "\n\n".join(parts) + "\n"


def ablations(rows: list[dict]) -> str:
    """The same tables for EI2 and its ablations, with EI2 as the reference; empty without ablations."""
    changed = changed_parts(rows)
    return markdown(with_base(rows, changed), reference=OURS, level=3) if changed else ""


def changed_parts(rows: list[dict]) -> list[dict]:
    """The rows of EI2 with one part changed: without compared methods and other values of its control."""
    return [row for row in rows if row["method"] not in METHODS_COMPARED + TRIED_CONTROLS]


def with_base(rows: list[dict], changed: list[dict]) -> list[dict]:
    """The changed rows, preceded by EI2's own of the same edits at the same budgets."""
    cases = {(row["budget"], case(row)) for row in changed}
    return [row for row in select(rows, method=OURS) if (row["budget"], case(row)) in cases] + changed


def tried_controls(rows: list[dict]) -> list[dict]:
    """The rows of other values of EI2's control, and of EI2 itself at their budget."""
    return with_base(rows, [row for row in rows if row["method"] in TRIED_CONTROLS])


def against_all(rows: list[dict], method: str) -> str:
    """One method's difference (for flicker the ratio) to the others in the measures of `GOAL`: a table per budget at
    which there is more than one other."""
    parts = []
    for budget in budgets_of(select(rows, method=method)):
        own = select(rows, method=method, budget=budget)
        others = {name: select(rows, method=name, budget=budget) for name in METHODS_COMPARED if name != method}
        others = {name: other for name, other in others.items() if shared_cases(own, other)}
        if len(others) > 1:
            parts += [f"### {method}, budget {budget}", _differences(own, others)]
    return "\n\n".join(parts)


def against_other_budgets(rows: list[dict], method: str = OURS, reference: str = REFERENCE) -> str:
    """The method at the equal budget against the reference at each other one, which may suit it better."""
    budgets = [budget for budget in budgets_of(select(rows, method=reference)) if budget != "equal"]
    others = {f"{reference}, {budget}": select(rows, method=reference, budget=budget) for budget in budgets}
    return _differences(select(rows, method=method, budget="equal"), others)


def _differences(own: list[dict], others: dict[str, list[dict]]) -> str:
    """A table of one method's differences (for flicker the ratio) to others by name; empty if they share no edit."""
    lines = []
    for name, other in others.items():
        if shared := shared_cases(own, other):
            comparisons = [compare(own, other, column) for column in GOAL]
            cells = ["–" if comparison is None else comparison.marked() for comparison in comparisons]
            lines.append([name, str(len(shared)), *cells])
    heads = ["against", "n", *(column.heading for column in GOAL)]
    return markdown_table(heads, lines, texts=2) if lines else ""


def where_carried(rows: list[dict]) -> str:
    """Tables of the edits into which frames were carried: elsewhere the methods that carry are EI2 itself."""
    carried = [edits_of(own) for name in (KEY_FRAME, DRAWN) if (own := select(rows, method=name, carried=True))]
    shown = [row for row in rows if row["method"] in (PER_FRAME, REFERENCE, OURS, KEY_FRAME, DRAWN)]
    budgets = {row["budget"] for row in rows if row["method"] in (KEY_FRAME, DRAWN)}
    shown = [row for row in shown if row["budget"] in budgets and all((row["clip"], row["edit"]) in c for c in carried)]
    return markdown(shown, reference=OURS, level=3) if carried else ""


def summary(rows: list[dict], method: str = OURS, reference: str = REFERENCE) -> str:
    """For each budget: where the method is better than the reference according to the intervals,
    where it is worse, and what is undecided."""
    lines = []
    for budget in budgets_of(rows):
        own, others = select(rows, budget=budget, method=method), select(rows, budget=budget, method=reference)
        verdicts: dict[str, list[str]] = {"better": [], "worse": [], "undecided": []}
        for comparison in filter(None, (compare(own, others, column) for column in QUALITY + SHIFT)):
            verdicts[comparison.verdict].append(f"{comparison.column.title.split(',')[0]} {comparison}")
        if any(verdicts.values()):
            text = "; ".join(f"{verdict}: {', '.join(names)}" for verdict, names in verdicts.items() if names)
            about = count_text(shared_cases(own, others))
            lines.append(f"* **{method} against {reference}, budget {budget}** ({about}): {text}.")
    return "\n".join(lines)


def page(rows: list[dict], title: str, pictures: dict[str, str], made: str = "") -> str:
    """The whole report. `pictures`: captions by file name; `made`: how the rows were made."""
    parts = [f"# {title}", made, summary(rows), NOTES]
    parts += [f"![{caption}]({name})" for name, caption in pictures.items()]
    parts.append(markdown([row for row in rows if row["method"] in METHODS_COMPARED]))
    sections = (
        (
            "## Where a frame was carried",
            f"Only the edits that change an object that could be carried; in all others {KEY_FRAME} is {OURS} itself. "
            f"{DRAWN} is given one frame of the right result, as a person would draw it; no other method is. "
            f"In brackets: the difference to {OURS}, or the ratio.",
            where_carried(rows),
        ),
        (
            "## Against each method",
            f"The difference of {OURS} and its options to every other method, or for flicker the ratio.",
            "\n\n".join(filter(None, (against_all(rows, method) for method in (OURS, KEY_FRAME, CONTROL, BLEND)))),
        ),
        (f"## Against {REFERENCE} with other settings", f"{OURS} at the equal budget.", against_other_budgets(rows)),
        (
            "## Ablations",
            f"Each is {OURS} with one part changed. In brackets: the difference to {OURS}, or the ratio.",
            ablations(rows),
        ),
        (
            "## Values of the control",
            f'"control 0.2 / 0.5": cross_replace 0.2, self_replace 0.5. In brackets: the difference to {OURS}.',
            markdown(tried, reference=OURS, level=3) if (tried := tried_controls(rows)) else "",
        ),
    )
    parts += [part for *head, text in sections if text for part in (*head, text)]
    return "\n\n".join(part.rstrip() for part in parts if part) + "\n"


def draw(rows: list[dict], stem: Path) -> dict[Path, str]:
    """Writes the plots `<stem>_*.png` that the rows have data for. Returns their captions by file."""
    compared = [row for row in rows if row["method"] in METHODS_COMPARED]
    alone = [row for row in compared if row["method"] not in AFTERWARDS]
    equal, best, (budget, most) = select(compared, budget="equal"), select(compared, budget="best"), fullest(compared)
    named = lambda budget: f"{budget} budget" if budget in DESCRIBED else budget
    changed, all_changed = fullest(with_base(rows, changed_parts(rows)))
    tried, all_tried = fullest(tried_controls(rows))
    flicker, background = plots.success_against_flicker, plots.success_against_background
    by_name = {
        "flicker_equal": (flicker, equal, "Edit success against flicker, equal budget"),
        "flicker_best": (flicker, best, "Edit success against flicker, best budget"),
        "background": (background, most, f"Edit success against the preserved background, {named(budget)}"),
        "shift": (
            plots.shift_per_block,
            select(alone, budget="equal"),
            "Covariate shift per transformer block, equal budget",
        ),
        "steps": (plots.success_against_steps, alone, "Success and PSNR against tuning steps"),
        "ablations": (flicker, all_changed, f"{OURS} with one part changed, {named(changed)}"),
        "controls": (background, all_tried, f"Values of {OURS}'s control, {named(tried)}"),
    }
    files = {stem.with_name(f"{stem.name}_{name}.png"): content for name, content in by_name.items()}
    return {file: caption for file, (plot, own, caption) in files.items() if own and plot(own, file, caption)}


def fullest(rows: list[dict]) -> tuple[str, list[dict]]:
    """The budget at which the most methods were measured, and its rows."""
    budget = max(budgets_of(rows), key=lambda name: len(methods_of(select(rows, budget=name))), default="")
    return budget, select(rows, budget=budget)


def write(file: Path) -> list[Path]:
    """Writes a results file's report and plots next to it. Returns the files."""
    rows, stem = load(file), Path(file).with_suffix("")
    pictures, report = draw(rows, stem), stem.with_suffix(".md")
    captions = {picture.name: text for picture, text in pictures.items()}
    report.write_text(page(rows, TITLES.get(stem.name, "EditBench"), captions, how_made(stem)), encoding="utf-8")
    return [report, *pictures]


def how_made(stem: Path) -> str:
    """Commands and machines, from the file that the runner writes next to the rows; empty without it."""
    note = stem.with_name(f"{stem.name}_machine.json")
    return "\n".join(
        f"* Made by `{run['command']}` on {run['machine']}: {run['workers']} process{'es' * (run['workers'] > 1)} of "
        f"{plural(run['threads_per_worker'], 'thread')}, torch {run['torch']}"
        for run in (json.loads(note.read_text(encoding="utf-8")) if note.exists() else ())
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="the rows, written by the benchmark")
    parser.add_argument("--best", action="store_true", help="only print the settings to choose, as JSON")
    parser.add_argument("--strips", type=Path, metavar="FOLDER", help="the edited frames: also writes contact sheets")
    args = parser.parse_args()
    try:
        rows = load(args.file)
        if args.best:
            print(json.dumps({**chosen(rows), **chosen_control(rows)}, indent=1))
            return
        written = write(args.file)
        if args.strips:
            written += sheets.write(rows, clips_of(rows[0]["split"]), args.strips, args.file.parent, args.file.stem)
    except (OSError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    print(*written, sep="\n")


if __name__ == "__main__":
    main()
