"""EditBench's measures as columns of Markdown tables, with paired intervals."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from benchmarks.editbench.rows import case, pairs_of, settings_text, shared_settings, values_of
from benchmarks.editbench.statistics import Interval, paired_bootstrap, paired_bootstrap_ratio


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
