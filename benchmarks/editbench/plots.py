"""EditBench's plots from rows: success against flicker and against the preserved background, covariate shift per
block, success against tuning steps.

Each function writes one PNG and returns whether there was anything to draw. Bars and bands are 95 % bootstrap
intervals over clips.
"""

from __future__ import annotations

import json
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator
from scipy.optimize import isotonic_regression

from benchmarks.drawing import TEXT, new_figure, save_figure

from .methods import BLEND, COMPARED, CONTROL, DRAWN, KEY_FRAME, OURS, PER_FRAME, REFERENCE
from .rows import (
    case,
    count_text,
    known,
    methods_of,
    select,
    settings_text,
    shared_settings,
    values_of,
    with_all_methods,
)
from .statistics import paired_bootstrap

LOOKS = {  # Okabe and Ito's colours, which colour-blind readers can distinguish; EI2's variants keep its colour
    PER_FRAME: ("#767676", "s"),
    REFERENCE: ("#0072B2", "v"),
    "Video-P2P attention": ("#009E73", "P"),
    "Video-P2P": ("#009E73", "P"),
    "Vid2Vid-zero attention": ("#CC79A7", "X"),
    "Vid2Vid-zero": ("#CC79A7", "X"),
    OURS: ("#D55E00", "o"),
    CONTROL: ("#D55E00", "o"),
    BLEND: ("#D55E00", "D"),
    KEY_FRAME: ("#D55E00", "^"),
    DRAWN: ("#E69F00", "^"),
}
HOLLOW = [method.name for method in COMPARED if method.control]  # markers
COLORS, MARKERS = ({name: look[i] for name, look in LOOKS.items()} for i in (0, 1))
OTHERS = ("#56B4E9", "#000000", "#8C6D31", "#6A51A3", "#009E73", "#CC79A7", "#882255", "#44AA99", "#999933")  # in turn
OTHER_MARKERS = "<>hp*dH8Ds^"


def _looks(looks: dict[str, str], others: str | tuple, methods: list[str]) -> dict[str, str]:
    """A colour or a marker per method; known methods always have the same."""
    unknown = [name for name in methods if name not in looks]
    return {name: looks.get(name) or others[unknown.index(name) % len(others)] for name in methods}


colors_of, markers_of = partial(_looks, COLORS, OTHERS), partial(_looks, MARKERS, OTHER_MARKERS)


def mean_interval(rows: list[dict], field: str, scale: float = 1.0) -> tuple[float, float, float] | None:
    """A field's mean over rows and its 95 % interval over clips, with zero width for a
    single clip; None if no row has a number."""
    values, clips = values_of(rows, field)
    if not values:
        return None
    if len(set(clips)) == 1:
        return (scale * float(np.mean(values)),) * 3
    # the paired bootstrap against zeros is the plain bootstrap of the mean
    return tuple(scale * x for x in paired_bootstrap(values, [0.0] * len(values), clips))


def apart(heights: list[float], gap: float, low: float, high: float) -> list[float]:
    """The heights moved as little as possible, so that any two are at least `gap` apart: in the same order, and between
    `low` and `high` if there is room. Heights that touch keep their mean."""
    if not heights:
        return []
    order, gaps = np.argsort(heights, kind="stable"), gap * np.arange(len(heights))
    limits = np.maximum(low, np.minimum(high - gaps[-1], np.asarray(heights)[order] - gaps))
    placed = np.empty(len(heights))
    placed[order] = isotonic_regression(limits).x + gaps
    return placed.tolist()


def _success_against(field: str, label: str, rows: list[dict], file: Path, title: str = "") -> bool:
    """One point per method with error bars, over the edits that all of them have. `rows`: of one budget."""
    rows, points = with_all_methods(rows), {}
    for method in methods_of(rows):
        own = select(rows, method=method)
        other, success = mean_interval(own, field), mean_interval(own, "success", 100)
        if other and success:
            points[method] = (other, success)
    if not points:
        return False
    figure, (axes,) = new_figure(1, (7.6, 4.4), f"{title} ({count_text(map(case, rows))})")
    colors, markers = colors_of(list(points)), markers_of(list(points))
    for method, intervals in points.items():
        (x, y), errors = zip(*((mean, [[mean - low], [high - mean]]) for mean, low, high in intervals))
        look = {"color": colors[method], "markerfacecolor": "white" if method in HOLLOW else colors[method]}
        look |= {"fmt": markers[method], "markersize": 7, "elinewidth": 1.2, "capsize": 2.5, "zorder": 3}
        axes.errorbar(x, y, xerr=errors[0], yerr=errors[1], **look)
    axes.set(xlabel=label, ylabel="edit success, % of frames (more is better)")
    axes.margins(x=0.08, y=0.08)
    _label_in_margin(axes, {method: (x[0], y[0]) for method, (x, y) in points.items()}, colors)
    return save_figure(figure, file)


FLICKER = "flicker: mean change of the error from frame to frame (less is better)"
BACKGROUND = "PSNR of the background to the right result, dB (more is better)"
success_against_flicker = partial(_success_against, "flicker", FLICKER)
success_against_background = partial(_success_against, "psnr_background", BACKGROUND)


def shift_per_block(rows: list[dict], file: Path, title: str = "") -> bool:
    """Mean shift and log-ratio of standard deviations in every transformer block, a line per method. `rows`: of one
    budget. A method without a shift has no line."""
    names = {"block_mean_shift": "mean shift", "block_log_variance_shift": "log-ratio of standard deviations"}
    rows, lines = with_all_methods(rows), {field: {} for field in names}
    for field in names:
        for method in methods_of(rows):
            blocks = [row[field] for row in select(rows, method=method) if row.get(field)]
            if blocks and any(map(any, blocks)):
                lines[field][method] = np.mean(np.asarray(blocks, dtype=np.float64), axis=0)
    if not any(lines.values()):
        return False
    figure, panels = new_figure(2, (7.6, 3.9), f"{title} ({count_text(map(case, rows))})")
    methods = [name for name in methods_of(rows) if any(name in lines[field] for field in names)]
    colors, markers = colors_of(methods), markers_of(methods)
    for axes, (field, name) in zip(panels, names.items()):
        for method, values in lines[field].items():
            look = {"color": colors[method], "markersize": 4, "linewidth": 1.8}
            axes.plot(range(1, len(values) + 1), values, markers[method] + "-", **look)
        axes.set(title=name, xlabel="transformer block, from input to output")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0].set_ylabel("shift against the host's features (less is better)")
    last = {method: (len(v), v[-1]) for method, v in lines["block_log_variance_shift"].items()}
    _label_in_margin(panels[1], last, colors)
    return save_figure(figure, file)


def success_against_steps(rows: list[dict], file: Path, title: str = "") -> bool:
    """Success and PSNR over tuning steps: a line per method through three or more budgets that differ only in
    `settings.steps`."""
    fixed, lines = _steps_series(rows)
    ticks = sorted({steps for series in lines.values() for steps in series})
    if not ticks:
        return False
    shown = {case(row) for series in lines.values() for own in series.values() for row in own}
    about = "; ".join(filter(None, (settings_text(fixed), count_text(shown))))
    figure, panels = new_figure(2, (7.6, 3.9), f"{title} ({about})")
    colors, markers = colors_of(list(lines)), markers_of(list(lines))
    names = {"success": ("edit success, % of frames", 100), "psnr": ("PSNR to the right result, dB", 1)}
    for axes, (field, (name, scale)) in zip(panels, names.items()):
        ends = {}
        for method, series in lines.items():
            intervals = {steps: mean_interval(own, field, scale) for steps, own in series.items()}
            intervals = {steps: interval for steps, interval in intervals.items() if interval}
            if not intervals:
                continue
            x, (y, low, high) = list(intervals), zip(*intervals.values())
            axes.plot(x, y, markers[method] + "-", color=colors[method], markersize=5, linewidth=1.8)
            axes.fill_between(x, low, high, color=colors[method], alpha=0.12, linewidth=0)
            ends[method] = (x[-1], y[-1])
        axes.set(title=name, xlabel="tuning steps", xscale="log")
        axes.set_xticks(ticks, [str(steps) for steps in ticks])
        axes.minorticks_off()
    _label_in_margin(panels[1], ends, colors)
    return save_figure(figure, file)


def _steps_series(rows: list[dict]) -> tuple[dict, dict[str, dict[int, list[dict]]]]:
    """The common settings, and each method's rows by tuning steps, ascending. If there are several such series, the one
    with the most points. All points of a method use the same edits."""
    series = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))  # by settings, method, steps and edit
    for row in rows:
        settings = shared_settings(row)
        if known(settings, "steps"):
            steps = settings.pop("steps")
            # budgets of the same settings, such as "best", hold the same edits again
            series[json.dumps(settings)][row["method"]][steps].setdefault(case(row), row)
    for lines in series.values():
        for method in [name for name, points in lines.items() if len(points) < 3]:
            del lines[method]
    fixed = max(series, key=lambda name: sum(map(len, series[name].values())), default="{}")
    lines = {method: series[fixed][method] for method in methods_of(rows) if method in series[fixed]}
    return json.loads(fixed), {method: _on_shared_edits(points) for method, points in lines.items()}


def _on_shared_edits(points: dict[int, dict[tuple, dict]]) -> dict[int, list[dict]]:
    """A method's rows by tuning steps, limited to the edits made with every number of steps."""
    shared = set.intersection(*map(set, points.values()))
    return {steps: [row for edit, row in points[steps].items() if edit in shared] for steps in sorted(points)}


def _label_in_margin(axes, places: dict[str, tuple[float, float]], colors: dict[str, str]) -> None:
    """Names points or line ends in the right margin, at their heights but far enough apart to be read. A thin line
    leads to each name. `places`: x and y in data units. Ablations are named by what is changed."""
    low, high = axes.get_ylim()
    line = 0.062 * (high - low)  # of text
    for (method, place), height in zip(places.items(), apart([y for _, y in places.values()], line, low, high)):
        arrow = {"arrowstyle": "-", "linewidth": 0.9, "linestyle": ":", "shrinkB": 4, "relpos": (0, 0.5)}
        axes.annotate(
            method.removeprefix(f"{OURS}, "),
            xy=place,
            xycoords="data",
            xytext=(1.03, (height - low) / (high - low)),
            textcoords="axes fraction",
            va="center",
            ha="left",
            color=colors[method],
            fontsize=TEXT,
            weight="bold",
            arrowprops={**arrow, "color": colors[method]},
        )
