"""EditBench's plots."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from benchmarks.drawing import new_figure
from benchmarks.editbench import plots, report
from benchmarks.editbench.methods import COMPARED, CONTROL_CHOICES
from benchmarks.editbench.statistics import paired_bootstrap

from .made_rows import bench, row


def test_apart_keeps_order_and_distance():
    assert plots.apart([5.0, 0.0, 9.0], 1.0, -9, 9) == [5.0, 0.0, 9.0]
    assert plots.apart([1.0, 1.0, 1.0], 2.0, -9, 9) == [-1.0, 1.0, 3.0]
    placed = plots.apart([0.0, 0.5, 1.2, 8.0], 1.0, -9, 9)
    assert np.diff(placed).min() >= 1 - 1e-9 and placed[3] == 8.0


def test_apart_stays_inside():
    assert plots.apart([9.0, 9.0, 1.0, 9.0], 1.0, 0, 9) == [7.0, 8.0, 1.0, 9.0]
    placed = plots.apart([0.2, 0.1, 0.3, 0.3, 9.0], 1.0, 0, 9)
    assert sorted(placed) == pytest.approx([0.025, 1.025, 2.025, 3.025, 9]) and min(placed) == placed[1]


def test_interval_of_a_mean():
    results = [row(clip=clip, success=s) for clip, s in (("a", 0.2), ("b", 0.4), ("c", 0.9))]
    mean, low, high = plots.mean_interval(results, "success", 100)
    expected = paired_bootstrap([20.0, 40.0, 90.0], [0.0] * 3, ["a", "b", "c"])
    assert (mean, low, high) == pytest.approx(tuple(expected)) and low < mean < high
    assert plots.mean_interval(results[:1], "success") == (0.2, 0.2, 0.2), "one clip has no interval"


def test_plotted_means_are_of_the_same_edits(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, file: figures.append(figure) or True)
    results = [row(name, clip=clip, success=0.5) for name in ("EI2", "Tune-A-Video") for clip in ("a", "b")]
    for more in ([], [row("EI2", clip="c", success=1.0)]):
        plots.success_against_flicker(results + more, tmp_path / "a.png", "Title")
    points = [[line.get_ydata().tolist() for line in figure.axes[0].lines] for figure in figures]
    assert points[0] == points[1]
    assert [figure.get_suptitle() for figure in figures] == ["Title (2 edits of 2 clips)"] * 2


def test_titles_fit_their_figure(tmp_path):
    figure, _ = new_figure(1, (7.6, 4.4), "success and PSNR against tuning steps " * 6)
    figure.canvas.draw()
    (text,) = figure.texts
    assert figure.bbox.containsx(text.get_window_extent().x0) and figure.bbox.containsx(text.get_window_extent().x1)


def test_the_command_writes_report_and_plots(tmp_path):
    file = tmp_path / "editbench_test.json"
    results = bench(
        ["Tune-A-Video", "Vid2Vid-zero attention", "EI2"], budgets=("equal", "steps50", "steps200")
    ) + bench(["EI2, SCA for FFAM"])
    file.write_text(json.dumps(results))
    written = report.write(file)
    names = [
        "editbench_test.md",
        *(f"editbench_test_{name}.png" for name in ("flicker_equal", "background", "shift", "steps", "ablations")),
    ]
    assert [path.name for path in written] == names
    text = written[0].read_text(encoding="utf-8")
    assert "## Ablations" in text and all(f"]({name})" in text for name in names[1:])
    assert "| EI2 | 18 |" in text
    for picture in written[1:]:
        assert picture.stat().st_size <= 150_000
        pixels = np.asarray(Image.open(picture).convert("L"))
        assert pixels.shape[1] > 1000 and pixels.mean() > 200 and pixels.min() < 80


def test_plots_tell_every_method_apart(tmp_path):
    compared = [method.name for method in COMPARED]
    looks = list(
        zip(
            plots.colors_of(compared).values(),
            plots.markers_of(compared).values(),
            [name in plots.HOLLOW for name in compared],
        )
    )
    assert len(set(looks)) == len(compared)
    tried = [method.name for method in CONTROL_CHOICES]
    assert len(set(zip(plots.colors_of(tried).values(), plots.markers_of(tried).values()))) == len(tried)
    file = tmp_path / "editbench_dev.json"
    file.write_text(json.dumps(bench([*compared, *tried])))
    names = {path.name: path for path in report.write(file)}
    assert {"editbench_dev_background.png", "editbench_dev_controls.png"} <= names.keys()
    assert "editbench_dev_ablations.png" not in names
    assert all(path.stat().st_size <= 150_000 for path in names.values())


def test_steps_need_three_budgets_that_differ_in_steps_alone(tmp_path):
    results = bench(["EI2"], budgets=("equal", "steps50", "steps200"))
    assert plots.success_against_steps(results, tmp_path / "steps.png")
    again = [entry | {"budget": "best"} for entry in results if entry["budget"] == "steps50"]
    fixed, lines = plots._steps_series(again + results)
    assert fixed == {"learning_rate": 1e-3, "cfg": 2.0} and list(lines) == ["EI2"]
    assert {steps: len(points) for steps, points in lines["EI2"].items()} == {50: 18, 100: 18, 200: 18}
    first = results[0]["clip"]
    fewer = [entry for entry in results if entry["budget"] != "steps50" or entry["clip"] == first]
    assert {len(points) for points in plots._steps_series(fewer)[1]["EI2"].values()} == {2}  # the same edits everywhere
    for entry in results:
        entry["settings"]["cfg"] = float(entry["settings"]["steps"])
    assert not plots.success_against_steps(results, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
