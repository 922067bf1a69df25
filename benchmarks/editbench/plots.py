"""EditBench's plots from rows: success against flicker and against the preserved background, covariate shift per
block, success against tuning steps.

Every function writes one PNG and returns whether there was anything to draw. Bars and bands are 95 % bootstrap
intervals over clips.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator

from benchmarks.drawing import INK, TEXT, new_figure, save
from benchmarks.editbench.methods import COMPARED, OURS
from benchmarks.editbench.rows import case, known, methods_of, select, settings_text, shared_settings, values_of
from benchmarks.editbench.statistics import paired_bootstrap

# Okabe and Ito's colours, which colour-blind readers can tell apart; with control a method keeps its colour
PLAIN = [method.name for method in COMPARED if not method.control]
HOLLOW = [method.name for method in COMPARED if method.control]  # markers
COLORS = dict(zip(PLAIN, ("#767676", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#D55E00")))
COLORS |= dict(zip(HOLLOW, ("#009E73", "#CC79A7", "#D55E00", "#D55E00")))
OTHERS = ("#56B4E9", "#000000", "#8C6D31", "#6A51A3", "#009E73", "#CC79A7", "#882255", "#44AA99", "#999933")  # in turn
MARKERS = dict(zip(PLAIN + HOLLOW, "svPX^oPXoD"))
OTHER_MARKERS = "D^<>hp*dH8s"


def colors_of(methods: list[str]) -> dict[str, str]:
    """A colour per method; known methods always have the same."""
    others = [name for name in methods if name not in COLORS]
    return {name: COLORS.get(name) or OTHERS[others.index(name) % len(OTHERS)] for name in methods}


def markers_of(methods: list[str]) -> dict[str, str]:
    """A marker per method, so that colour is not all that tells points apart."""
    others = [name for name in methods if name not in MARKERS]
    return {name: MARKERS.get(name) or OTHER_MARKERS[others.index(name) % len(OTHER_MARKERS)] for name in methods}


def mean_interval(rows: list[dict], field: str, scale: float = 1.0) -> tuple[float, float, float] | None:
    """A field's mean over rows and its 95 % interval over clips, of no width for a single clip; None where no row
    holds a number."""
    values, clips = values_of(rows, field)
    if not values:
        return None
    if len(set(clips)) == 1:
        return (scale * float(np.mean(values)),) * 3
    # the paired bootstrap against zeros is the plain bootstrap of the mean
    return tuple(scale * x for x in paired_bootstrap(values, [0.0] * len(values), clips))


def apart(wanted: list[float], gap: float, low: float, high: float) -> list[float]:
    """Positions as near to the wanted ones as it goes with at least `gap` between any two, in the same order, and
    between `low` and `high` as long as there is room."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    wanted = list(wanted)
    for n, i in enumerate(order):  # room for all others below and above
        wanted[i] = max(min(wanted[i], high - gap * (len(order) - 1 - n)), low + gap * n)
    groups: list[list[int]] = []  # neighbours that touch, moved as one so that their mean stays
    start = lambda group: sum(wanted[i] for i in group) / len(group) - gap * (len(group) - 1) / 2
    for i in order:
        groups.append([i])
        while len(groups) > 1 and start(groups[-2]) + gap * len(groups[-2]) > start(groups[-1]):
            last = groups.pop()
            groups[-1] += last
    placed = [0.0] * len(wanted)
    for group in groups:
        for n, i in enumerate(group):
            placed[i] = start(group) + gap * n
    return placed


def success_against_flicker(rows: list[dict], file: Path, title: str = "") -> bool:
    """One point per method with error bars; up and left is better. `rows`: of one budget."""
    label = "flicker: mean change of the error from frame to frame (less is better)"
    return _success_against("flicker", label, rows, file, title)


def success_against_background(rows: list[dict], file: Path, title: str = "") -> bool:
    """The same against the PSNR outside the object, where most edits should change nothing; up and right is better."""
    label = "PSNR of the background to the right result, dB (more is better)"
    return _success_against("psnr_background", label, rows, file, title)


def _success_against(field: str, label: str, rows: list[dict], file: Path, title: str) -> bool:
    points = {}
    for method in methods_of(rows):
        own = select(rows, method=method)
        other, success = mean_interval(own, field), mean_interval(own, "success", 100)
        if other and success:
            points[method] = (other, success)
    if not points:
        return False
    figure, (axes,) = new_figure(1, (7.6, 4.4))
    colors, markers = colors_of(list(points)), markers_of(list(points))
    for method, ((x, x_low, x_high), (y, y_low, y_high)) in points.items():
        axes.errorbar(x, y, xerr=[[x - x_low], [x_high - x]], yerr=[[y - y_low], [y_high - y]], fmt=markers[method],
                      color=colors[method], markerfacecolor="white" if method in HOLLOW else colors[method],
                      markersize=7, elinewidth=1.2, capsize=2.5, zorder=3)
    axes.set_xlabel(label)
    axes.set_ylabel("edit success, % of frames (more is better)")
    axes.margins(x=0.08, y=0.08)
    figure.suptitle(title, fontsize=TEXT + 1, color=INK)
    places = {method: (x[0], y[0]) for method, (x, y) in points.items()}
    _label_in_margin(axes, places, colors)
    return save(figure, file)


def shift_per_block(rows: list[dict], file: Path, title: str = "") -> bool:
    """Mean shift and log-ratio of standard deviations in every transformer block, a line per method. `rows`: of one
    budget. A method that shifts nothing has no line."""
    fields = {"block_mean_shift": "mean shift", "block_log_variance_shift": "log-ratio of standard deviations"}
    lines = {field: {} for field in fields}
    for field in fields:
        for method in methods_of(rows):
            found = [row[field] for row in select(rows, method=method) if row.get(field)]
            if found and any(map(any, found)):
                lines[field][method] = np.mean(np.asarray(found, dtype=np.float64), axis=0)
    if not any(lines.values()):
        return False
    figure, panels = new_figure(2, (7.6, 3.9))
    methods = [name for name in methods_of(rows) if any(name in lines[field] for field in fields)]
    colors, markers = colors_of(methods), markers_of(methods)
    for axes, (field, name) in zip(panels, fields.items()):
        for method, values in lines[field].items():
            axes.plot(range(1, len(values) + 1), values, markers[method] + "-", color=colors[method], markersize=4,
                      linewidth=1.8)
        axes.set_title(name, fontsize=TEXT, color=INK)
        axes.set_xlabel("transformer block, from input to output")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0].set_ylabel("shift against the host's features (less is better)")
    figure.suptitle(title, fontsize=TEXT + 1, color=INK)
    last = {method: (len(v), v[-1]) for method, v in lines["block_log_variance_shift"].items()}
    _label_in_margin(panels[1], last, colors)
    return save(figure, file)


def success_against_steps(rows: list[dict], file: Path, title: str = "") -> bool:
    """Success and PSNR over tuning steps: a line per method through the budgets that differ in `settings.steps`
    alone, where there are three or more; a dashed level for a method that is not tuned."""
    fixed, lines = _steps_series(rows)
    tuned = [series for series in lines.values() if list(series) != [0]]
    if not tuned:
        return False
    figure, panels = new_figure(2, (7.6, 3.9))
    methods = list(lines)
    colors, markers = colors_of(methods), markers_of(methods)
    end = max(max(series) for series in tuned)
    start = min(min(series) for series in tuned)
    names = {"success": ("edit success, % of frames", 100), "psnr": ("PSNR to the right result, dB", 1)}
    for axes, (field, (name, scale)) in zip(panels, names.items()):
        ends = {}
        for method, series in lines.items():
            found = {steps: mean_interval(own, field, scale) for steps, own in series.items()}
            found = {steps: interval for steps, interval in found.items() if interval}
            if not found:
                continue
            x, (y, low, high) = list(found), zip(*found.values())
            if x == [0]:
                axes.plot([start, end], [y[0]] * 2, "--", color=colors[method], linewidth=1.5)
                ends[method] = (end, y[0])
                continue
            axes.plot(x, y, markers[method] + "-", color=colors[method], markersize=5, linewidth=1.8)
            axes.fill_between(x, low, high, color=colors[method], alpha=0.12, linewidth=0)
            ends[method] = (x[-1], y[-1])
        axes.set_title(name, fontsize=TEXT, color=INK)
        axes.set_xlabel("tuning steps")
        axes.set_xscale("log")
        ticks = sorted({steps for series in tuned for steps in series if steps > 0})
        axes.set_xticks(ticks, [str(steps) for steps in ticks])
        axes.minorticks_off()
    figure.suptitle(f"{title} ({settings_text(fixed)})" if fixed else title, fontsize=TEXT + 1, color=INK)
    _label_in_margin(panels[1], ends, colors)
    return save(figure, file)


def _steps_series(rows: list[dict]) -> tuple[dict, dict[str, dict[int, list[dict]]]]:
    """The settings that are the same, and each method's rows by tuning steps, ascending; 0 where it is not tuned. Of
    several such series the one with the most points, all of the same edits."""
    found: dict[str, dict[str, dict[int, dict]]] = {}
    for row in rows:
        settings = shared_settings(row)
        if known(settings, "steps"):
            steps = settings.pop("steps")
            steps = 0 if row.get("seconds_tune") == 0 else steps
            lines = found.setdefault(json.dumps(settings), {})
            # budgets of the same settings, such as "best", hold the same edits again
            lines.setdefault(row["method"], {}).setdefault(steps, {}).setdefault(case(row), row)
    series = {}
    for fixed, lines in found.items():
        series[fixed] = {
            method: _on_the_same(points)
            for method, points in lines.items() if len(points) >= 3 or list(points) == [0]
        }
    if not series:
        return {}, {}
    fixed = max(series, key=lambda name: sum(map(len, series[name].values())))
    return json.loads(fixed), {method: series[fixed][method] for method in methods_of(rows) if method in series[fixed]}


def _on_the_same(points: dict[int, dict[tuple, dict]]) -> dict[int, list[dict]]:
    """A method's rows by tuning steps, of the edits alone that it made with every number of steps."""
    shared = set.intersection(*map(set, points.values()))
    return {steps: [row for edit, row in points[steps].items() if edit in shared] for steps in sorted(points)}


def _label_in_margin(axes, places: dict[str, tuple[float, float]], colors: dict[str, str]) -> None:
    """Names the points or line ends in the right margin, at their heights, apart enough to be read; a thin line leads
    from a point to its name. `places`: x and y in data units. Ablations are named by what is changed."""
    low, high = axes.get_ylim()
    gap = 0.062 * (high - low)  # one line of text
    heights = apart([y for _, y in places.values()], gap, low, high)
    for (method, place), height in zip(places.items(), heights):
        axes.annotate(
            method.removeprefix(f"{OURS}, "), xy=place, xycoords="data", xytext=(1.03, (height - low) / (high - low)),
            textcoords="axes fraction", va="center", ha="left", color=colors[method], fontsize=TEXT, weight="bold",
            arrowprops={"arrowstyle": "-", "color": colors[method], "linewidth": 0.9, "linestyle": ":", "shrinkB": 4,
                        "relpos": (0, 0.5)},
        )
