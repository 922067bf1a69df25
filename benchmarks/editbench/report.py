"""EditBench's report: Markdown tables, a summary and plots, made from a results file's rows alone.

    python -m benchmarks.editbench.report benchmarks/results/editbench_test.json

writes `editbench_test.md` and `editbench_test_*.png` beside that file; with `--strips` contact sheets, too.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.editbench import plots, sheets
from benchmarks.editbench.choosing import chosen, chosen_control
from benchmarks.editbench.clips import clips_of
from benchmarks.editbench.methods import BLEND, COMPARED, CONTROL, CONTROL_CHOICES, JOINT, OURS, REFERENCE
from benchmarks.editbench.rows import budgets_of, case, load, methods_of, select
from benchmarks.editbench.tables import COST, GOAL, QUALITY, SHIFT, all_settings, compare, difference, table

DESCRIBED = {
    "equal": "Equal budget: the same steps, learning rate and guidance for every method",
    "best": "Best budget: every method with the settings it did best with on the development split",
}
METHODS_COMPARED = [method.name for method in COMPARED]
CONTROLLED = [method.name for method in COMPARED if method.control]
TRIED_CONTROLS = [method.name for method in CONTROL_CHOICES]


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


def ablations(rows: list[dict], level: int = 3) -> str:
    """The same tables for EI2 and its ablations (`changed_parts`), with `JOINT` as the reference. Empty where the rows
    hold no ablation."""
    changed = changed_parts(rows)
    return markdown(with_base(rows, changed, OURS, JOINT), reference=JOINT, level=level) if changed else ""


def changed_parts(rows: list[dict]) -> list[dict]:
    """The rows of EI2 with one part changed: what is neither compared nor another value of its control."""
    return [row for row in rows if row["method"] not in METHODS_COMPARED + TRIED_CONTROLS]


def with_base(rows: list[dict], changed: list[dict], *base: str) -> list[dict]:
    """Those rows, behind the rows of what they are compared with at their budgets."""
    budgets = {row["budget"] for row in changed}
    return [row for row in rows if row["method"] in base and row["budget"] in budgets] + changed


def tried_controls(rows: list[dict]) -> list[dict]:
    """The rows of other values of EI2's control, and of EI2 itself at their budget, all with joint Group Norm."""
    return with_base(rows, [row for row in rows if row["method"] in TRIED_CONTROLS], JOINT)


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


def page(rows: list[dict], title: str, pictures: dict[str, str], made: str = "") -> str:
    """The whole report. `pictures`: file names and captions, shown between summary and tables; `made`: how the rows
    were made."""
    parts = [
        f"# {title}",
        made,
        summary(rows),
        summary(rows, reference=JOINT),
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
        said = f"Each is {JOINT}, with one part changed. In brackets: the difference to {JOINT}, or the ratio."
        parts += ["## Ablations", said, changed]
    tried = tried_controls(rows)
    if tried:
        said = f"\"control 0.2 / 0.5\": cross_replace 0.2, self_replace 0.5. In brackets: the difference to {JOINT}."
        parts += ["## Values of the control", said, markdown(tried, reference=JOINT, level=3)]
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
        budget, own = fullest(with_base(rows, changed, OURS, JOINT))
        wanted.append(("ablations", plots.success_against_flicker, own, f"{JOINT}, with one part changed, {budget}"))
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
