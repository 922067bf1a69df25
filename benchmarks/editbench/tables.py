"""EditBench's measures as columns of Markdown tables, with paired intervals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean, median
from typing import NamedTuple

from benchmarks.results import markdown_table

from .rows import case, pairs_of, settings_text, shared_settings, values_of
from .statistics import Interval, paired_bootstrap

UNDECIDED = "undecided"


@dataclass(frozen=True)
class Column:
    """One measure in a table. `higher`: whether more is better; `compare`: by "difference" or "ratio" with the
    reference, None for a mean alone; `scale`: from a row's unit to the unit shown; `center`: of a method's rows."""

    field: str
    title: str
    digits: int
    higher: bool
    compare: str | None = "difference"
    scale: float = 1.0
    center: Callable[[list[float]], float] = fmean

    @property
    def heading(self) -> str:
        return self.title + (" ↑" if self.higher else " ↓")


QUALITY = (
    Column("success", "edit success, %", 1, True, scale=100),
    Column("preservation", "preservation, %", 1, True, scale=100),
    Column("agreement", "agreement of frames", 3, True),
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
COST = (
    Column("seconds_tune", "tune, s", 1, False, None, center=median),  # a busy machine makes outliers
    Column("seconds_invert", "invert, s", 1, False, None, center=median),
    Column("seconds_edit", "edit, s", 1, False, None, center=median),
    Column("peak_bytes", "peak memory, MB", 0, False, None, scale=1e-6),
)


class Comparison(NamedTuple):
    """A measure's difference to the reference, or its ratio, over the cases that both were measured on."""

    interval: Interval
    column: Column

    @property
    def verdict(self) -> str:
        """ "better", "worse", or "undecided" if the interval includes no difference."""
        neutral = 1.0 if self.column.compare == "ratio" else 0.0
        if self.interval.low <= neutral <= self.interval.high:
            return UNDECIDED
        return "better" if (self.interval.estimate > neutral) == self.column.higher else "worse"

    def __str__(self) -> str:
        """`+6.2 [+1.9, +10.4]`, or of a ratio `×0.62 [0.55, 0.70]`."""
        if self.column.compare == "ratio":
            return "×{:.2f} [{:.2f}, {:.2f}]".format(*self.interval)
        return "{0:+.{3}f} [{1:+.{3}f}, {2:+.{3}f}]".format(*self.interval, self.column.digits)

    def marked(self) -> str:
        """The text, bold if the interval excludes no difference."""
        return str(self) if self.verdict == UNDECIDED else f"**{self}**"


def compare(rows: list[dict], reference: list[dict], column: Column) -> Comparison | None:
    """One method's rows against the reference's at the same budget. None for fewer than two clips in common, and for a
    ratio if the reference is zero on a clip."""
    values, others, clips = pairs_of(rows, reference, column.field)
    if column.compare is None or len(set(clips)) < 2:
        return None
    if column.compare == "difference":
        difference = paired_bootstrap(values, others, clips)
        return Comparison(Interval(*(column.scale * x for x in difference)), column)
    sums = defaultdict(float)
    for clip, other in zip(clips, others):
        sums[clip] += other
    return Comparison(paired_bootstrap(values, others, clips, ratio=True), column) if min(sums.values()) > 0 else None


def table(by_method: dict[str, list[dict]], reference: str, columns: tuple[Column, ...]) -> str:
    """A line per method; bold where the interval excludes no difference to the reference. `n`: rows (edits times seeds)
    and, if the reference lacks some of them, in brackets how many it shares. Columns that no row holds are left out."""
    columns = tuple(c for c in columns if any(c.field in row for rows in by_method.values() for row in rows))
    lines, others = [], by_method.get(reference, [])
    for method, rows in by_method.items():
        shared = len(shared_cases(rows, others))
        n = str(len(rows)) if not others or shared == len(rows) else f"{len(rows)} ({shared})"
        lines.append([method, n, *(cell(rows, [] if method == reference else others, column) for column in columns)])
    return markdown_table(["method", "n", *(column.heading for column in columns)], lines, texts=2)


def cell(rows: list[dict], reference: list[dict], column: Column) -> str:
    """A method's mean and its difference to the reference, e.g. `78.1 (**+6.2 [+1.9, +10.4]**)`."""
    values, _ = values_of(rows, column.field)
    if not values:
        return "–"
    comparison, own = compare(rows, reference, column), f"{column.scale * column.center(values):.{column.digits}f}"
    return own + (f" ({comparison.marked()})" if comparison else "")


def shared_cases(rows: list[dict], others: list[dict]) -> set[tuple]:
    return {case(row) for row in rows} & {case(row) for row in others}


def all_settings(by_method: dict[str, list[dict]]) -> str:
    """The settings of each method, or of all methods if they are the same."""
    texts: dict[str, list[str]] = {}
    for method, rows in by_method.items():
        for text in dict.fromkeys(settings_text(shared_settings(row)) or "not recorded" for row in rows):
            texts.setdefault(text, []).append(method)
    if len(texts) == 1:
        return f"All methods: {next(iter(texts))}."
    return "\n".join(f"* {'; '.join(methods)}: {text}" for text, methods in texts.items())
