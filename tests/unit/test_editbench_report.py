"""EditBench's tables, plots and contact sheets, from rows whose right answers are computed by hand here."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.editbench import choosing, plots, report, rows, sheets, tables
from benchmarks.editbench.clips import split
from benchmarks.editbench.methods import COMPARED, CONTROL_CHOICES
from benchmarks.editbench.statistics import paired_bootstrap
from miniature.world import render

METHODS = [method.name for method in COMPARED if not method.control]


def row(method="EI2", budget="equal", clip="line-1", edit="color", seed=0, **measured) -> dict:
    """A row with everything a results file has."""
    steps = {"equal": 100, "best": 200}.get(budget) or int(budget.removeprefix("steps"))
    return {
        "method": method, "budget": budget, "clip": clip, "edit": edit, "seed": seed, "frames": 8, "motion": "line",
        "success": 0.5, "preservation": 0.5, "psnr": 20.0, "psnr_object": 15.0, "psnr_background": 25.0,
        "flicker": 0.05, "centroid_error": 4.0, "mean_shift": 0.2, "log_variance_shift": 0.1,
        "block_mean_shift": [0.1, 0.3], "block_log_variance_shift": [0.05, 0.15], "reconstruction_psnr": 28.0,
        "seconds_tune": 60.0, "seconds_invert": 5.0, "seconds_edit": 6.0, "peak_bytes": 1_500_000_000,
        "settings": {"steps": steps, "learning_rate": 1e-3, "cfg": 2.0, "inflation": {}}, **measured,
    }


def bench(methods=METHODS, budgets=("equal",), seed=0, every=4) -> list[dict]:
    """Rows of every method on every fourth clip of `test`, drawn around levels that differ by method and steps."""
    rng, made = random.Random(seed), []
    for budget in budgets:
        for m, method in enumerate(methods):
            for clip in split("test")[::every]:
                for edit in clip.edits:
                    one = row(method, budget, clip.name, edit.kind)
                    untuned = method == "Vid2Vid-zero attention"
                    growth = 0.0 if untuned else 0.07 * np.log2(one["settings"]["steps"] / 25)
                    draw = lambda mean, spread: min(max(rng.gauss(mean, spread), 0.0), 1.0)
                    one |= {
                        "success": draw(0.3 + 0.09 * m + growth, 0.2), "psnr": rng.gauss(17 + m + 8 * growth, 2),
                        "flicker": 0.02 + draw(0.05 - 0.006 * m, 0.01), "seconds_tune": 0.0 if untuned else 60.0,
                        "block_mean_shift": [draw(0.3 / (m + 1) * (1 + i / 8), 0.03) for i in range(16)],
                        "block_log_variance_shift": [draw(0.2 / (m + 1) * (2 - i / 16), 0.02) for i in range(16)],
                    }
                    if method == "Per-frame":
                        one |= {"mean_shift": 0.0, "log_variance_shift": 0.0, "block_mean_shift": [0.0] * 16,
                                "block_log_variance_shift": [0.0] * 16}
                    made.append(one)
    return made


def cells(text: str, method: str, table: int = 0) -> list[str]:
    """What a method's row says in the n-th table, without the method's name."""
    lines = [line for line in text.splitlines() if line.startswith(f"| {method} |")]
    return [part.strip() for part in lines[table].strip("|").split("|")][1:]


def headings(text: str, table: int = 0) -> list[str]:
    lines = [line for line in text.splitlines() if line.startswith("| method |")]
    return [part.strip() for part in lines[table].strip("|").split("|")][1:]


# --- rows


def test_methods_come_in_the_order_of_the_presets_then_as_they_are():
    made = [row("my own"), *(row(name) for name in reversed(METHODS)), row("another")]
    assert rows.methods_of(made) == [*METHODS, "my own", "another"]
    assert METHODS[1] == "Tune-A-Video" and METHODS[-1] == "EI2"


def test_pairs_are_of_the_same_clip_edit_and_seed():
    ours = [row(clip="a", psnr=1.0), row(clip="a", seed=1, psnr=2.0), row(clip="b", psnr=3.0), row(clip="c", psnr=4.0)]
    theirs = [row(clip="c", psnr=40.0), row(clip="a", psnr=10.0), row(clip="b", psnr=None), row(clip="d", psnr=9.0)]
    assert rows.pairs_of(ours, theirs, "psnr") == ([1.0, 4.0], [10.0, 40.0], ["a", "c"])


@pytest.mark.parametrize("content, message", [
    ("{}", "does not hold EditBench rows"),
    ("[]", "does not hold EditBench rows"),
    ('[{"method": "EI2", "budget": "equal", "clip": "a"}]', "Row 0 of .* has no edit, seed"),
    (json.dumps([row(), row()]), "holds EI2 / equal / line-1 / color / 0 twice"),
])
def test_other_files_are_refused(tmp_path, content, message):
    file = tmp_path / "rows.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=message):
        rows.load(file)


# --- tables


def constant_bench() -> list[dict]:
    """EI2 is the same amount better on every clip, so that every resample gives the same: intervals without width."""
    theirs = [row("Tune-A-Video", clip=c, success=s, flicker=f, psnr=10.0 + i)
              for i, (c, s, f) in enumerate([("a", 0.25, 0.04), ("b", 0.5, 0.08), ("c", 0.75, 0.06)])]
    ours = [one | {"method": "EI2", "success": one["success"] + 0.125, "flicker": one["flicker"] / 2} for one in theirs]
    return ours + theirs


def test_cells_hold_mean_difference_and_ratio():
    text = report.markdown(constant_bench())
    ours, theirs, head = cells(text, "EI2"), cells(text, "Tune-A-Video"), headings(text)
    at = lambda name: next(i for i, title in enumerate(head) if title.startswith(name))
    assert head[0] == "n" and ours[0] == theirs[0] == "3"
    assert theirs[at("edit success")] == "50.0"
    assert ours[at("edit success")] == "62.5 (**+12.5 [+12.5, +12.5]**)"
    assert ours[at("flicker")] == "0.0300 (**×0.50 [0.50, 0.50]**)"
    assert ours[at("PSNR, dB")] == "11.00 (+0.00 [+0.00, +0.00])", "no difference is not bold"
    assert [title[-1] for title in head[1:]] == ["↑"] * 5 + ["↓"] * 2
    costs = dict(zip(headings(text, 1), cells(text, "EI2", 1)))
    assert costs["tune, s ↓"] == "60.0" and costs["peak memory, MB ↓"] == "1500"


def test_intervals_are_of_clips_not_of_edits():
    """Two clips with opposite differences of 0.1 and 0.3: drawn clips give -0.1, 0.1 or 0.3, whatever their edits."""
    made = []
    for clip, difference in (("a", -0.1), ("b", 0.3)):
        for seed in range(20):
            made += [row("Tune-A-Video", clip=clip, seed=seed), row(clip=clip, seed=seed, success=0.5 + difference)]
    assert cells(report.markdown(made), "EI2")[1] == "60.0 (+10.0 [-10.0, +30.0])"


def test_budgets_are_compared_apart():
    made = constant_bench() + [one | {"budget": "best", "success": 1.0} for one in constant_bench()]
    text = report.markdown(made)
    assert text.index("Equal budget") < text.index("Best budget")
    assert cells(text, "EI2", 0)[1].startswith("62.5 (**+12.5")
    assert cells(text, "EI2", 2)[1] == "100.0 (+0.0 [+0.0, +0.0])"


def test_rows_without_a_partner_are_counted_but_not_compared():
    text = report.markdown([*constant_bench(), row(clip="d", success=0.625)])
    assert cells(text, "EI2")[:2] == ["4 (3)", "62.5 (**+12.5 [+12.5, +12.5]**)"]


def test_what_was_not_measured_is_a_dash_and_one_clip_has_no_interval():
    made = [row("Tune-A-Video", psnr=None), row(psnr=None, success=1.0)]
    assert cells(report.markdown(made), "EI2")[1:4] == ["100.0", "50.0", "–"]


def test_no_ratio_to_a_reference_of_zero():
    made = constant_bench()
    for one in made:
        one["mean_shift"] *= one["method"] == "EI2"
    assert cells(report.markdown(made), "EI2", 1)[1] == "0.200"


def test_settings_are_said_once_where_they_are_the_same():
    made = constant_bench()
    assert "All methods: steps 100, learning rate 0.001, cfg 2." in report.markdown(made)
    made[0]["settings"] = made[0]["settings"] | {"cfg": 5.0}
    assert "* EI2: steps 100, learning rate 0.001, cfg 5" in report.markdown(made)


def test_ablations_are_compared_with_ei2_and_only_at_their_budgets():
    made = constant_bench() + [one | {"budget": "best"} for one in constant_bench()]
    made += [one | {"method": "EI2, dense", "success": 0.5} for one in constant_bench() if one["method"] == "EI2"]
    text = report.ablations(made)
    assert "Tune-A-Video" not in text and "Best budget" not in text
    assert cells(text, "EI2")[1] == "62.5"
    assert cells(text, "EI2, dense")[1].startswith("50.0 (") and cells(text, "EI2, dense")[2] == \
        "50.0 (+0.0 [+0.0, +0.0])"
    assert report.ablations(constant_bench()) == ""


def test_summary_sorts_measures_by_what_the_intervals_say():
    text = report.summary(constant_bench())
    assert "(3 edits of 3 clips)" in text
    better, undecided = text.split("better: ")[1].split("; undecided: ")
    assert "edit success +12.5 [+12.5, +12.5]" in better and "flicker ×0.50" in better and "PSNR" not in better
    assert "PSNR +0.00" in undecided and "worse" not in text
    worse = report.summary(constant_bench(), method="Tune-A-Video", reference="EI2")
    assert "worse: edit success -12.5" in worse and "flicker ×2.00" in worse and "better" not in worse


def controlled_bench() -> list[dict]:
    """EI2 with control keeps 10 points and 2 dB more than every other method, at 5 points less success than EI2."""
    made = constant_bench()
    for name in ("Video-P2P", "Vid2Vid-zero"):
        made += [one | {"method": name} for one in made if one["method"] == "Tune-A-Video"]
    ours = [one for one in made if one["method"] == "EI2"]
    more = {"preservation": 0.6, "psnr_background": 27.0, "source_psnr": 31.0}
    return made + [one | {"method": "EI2 + control", "success": one["success"] - 0.05} | more for one in ours]


def test_control_is_compared_with_every_other_method():
    text = report.page(controlled_bench(), "Title", {})
    part = text.split("## With attention control")[1]
    against = {line.split("|")[1].strip(): line for line in part.splitlines() if line.startswith("| ")}
    assert list(against) == ["against", "Tune-A-Video", "Video-P2P", "Vid2Vid-zero", "EI2"]
    for name in list(against)[1:]:
        assert "**+10.0 [+10.0, +10.0]**" in against[name] and "**+2.00 [+2.00, +2.00]**" in against[name]
    assert "| **-5.0 [-5.0, -5.0]** |" in against["EI2"] and "| **+7.5 [+7.5, +7.5]** |" in against["Tune-A-Video"]
    assert "| +0.00 [+0.00, +0.00] |" in against["EI2"], "no difference is not bold"
    column = headings(text, 1).index("PSNR of the source sampled beside it, dB ↑")
    assert cells(text, "EI2 + control", 1)[column] == "31.00" and cells(text, "EI2", 1)[column] == "–"
    assert "Ablations" not in text and "Values of the control" not in text
    assert "With attention control" not in report.page(constant_bench(), "Title", {})


def test_tried_controls_are_compared_with_ei2_and_are_no_ablations():
    made = controlled_bench()
    tried = [one | {"method": "EI2, control 0.4 / 0.5"} for one in made if one["method"] == "EI2 + control"]
    text = report.page(made + tried, "Title", {})
    assert "## Ablations" not in text
    part = text.split("## Values of the control")[1]
    assert cells(part, "EI2, control 0.4 / 0.5")[1] == "57.5 (**-5.0 [-5.0, -5.0]**)" and "Tune-A-Video" not in part


def test_methods_are_told_by_name_not_by_their_settings():
    """All rows but the tuned and untuned have the same budget; what control does is the method's own."""
    made = [row(name) for name in ("EI2", "EI2 + control")]
    made[1]["settings"] = made[1]["settings"] | {"control": {"cross_replace": 0.2}, "null_text": 1}
    assert tables.all_settings({"EI2": made[:1], "EI2 + control": made[1:]}).startswith("All methods: steps 100")


# --- choosing settings


def test_the_control_is_chosen_with_and_without_blending():
    made = [
        row("EI2, control 0.2 / 0.5", success=0.6),
        row("EI2, control 0.4 / 0.5", success=0.9),
        row("EI2, control 0.2 / 0.5, blend 0.3", success=0.80, psnr=20.0),
        row("EI2, control 0.4 / 0.5, blend 0.5", success=0.79, psnr=22.0),
        row("EI2, control 0.4 / 0.5, blend 0.5", clip="easy", success=0.0),
    ]
    blended = {"EI2 + control + blend": "EI2, control 0.4 / 0.5, blend 0.5"}
    assert choosing.chosen_control(made) == {"EI2 + control": "EI2, control 0.4 / 0.5", **blended}
    assert choosing.chosen_control(made[2:]) == blended and choosing.chosen_control([row()]) == {}


def test_the_best_budget_is_that_of_success_times_preservation():
    made = [
        row(budget="steps50", success=0.0, preservation=1.0, psnr=30.0),  # returns the source
        row(budget="steps100", success=0.6, preservation=0.5),  # 0.30
        row(budget="steps200", success=0.7, preservation=0.3, psnr=25.0),  # 0.21
    ]
    assert choosing.scores_of(made, "EI2")["steps100"] == (pytest.approx(0.3), 20.0)
    assert choosing.best_of(choosing.scores_of(made, "EI2")) == "steps100"


def test_psnr_decides_between_budgets_of_about_equal_success():
    assert choosing.best_of({"a": (0.80, 20.0), "b": (0.785, 21.0), "c": (0.77, 30.0)}) == "b"


def test_the_equal_budget_is_the_best_for_both_together():
    made = [row(method, budget, psnr=psnr) for method, budget, psnr in [
        ("EI2", "steps50", 20.0), ("EI2", "steps100", 23.0), ("EI2", "steps200", 24.0),
        ("Tune-A-Video", "steps50", 22.0), ("Tune-A-Video", "steps100", 21.0), ("Tune-A-Video", "steps200", 16.0)]]
    assert choosing.chosen(made) == {"EI2": "steps200", "Tune-A-Video": "steps50", "equal": "steps100"}


def test_budgets_are_chosen_on_the_same_edits():
    made = [row(budget="steps50", success=0.3), row(budget="steps100", success=0.1),
            row(budget="steps100", clip="easy", success=1.0)]
    assert choosing.best_of(choosing.scores_of(made, "EI2")) == "steps50"
    with pytest.raises(ValueError, match="The budgets of EI2 have no edit in common"):
        choosing.scores_of([made[0], made[2]], "EI2")


# --- plots


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
    made = [row(clip=clip, success=s) for clip, s in (("a", 0.2), ("b", 0.4), ("c", 0.9))]
    mean, low, high = plots.mean_interval(made, "success", 100)
    expected = paired_bootstrap([20.0, 40.0, 90.0], [0.0] * 3, ["a", "b", "c"])
    assert (mean, low, high) == pytest.approx(tuple(expected)) and low < mean < high
    assert plots.mean_interval(made[:1], "success") == (0.2, 0.2, 0.2), "one clip has no interval"


def test_the_command_writes_report_and_plots(tmp_path):
    file = tmp_path / "editbench_test.json"
    made = bench(METHODS[1::2] + ["EI2"], budgets=("equal", "steps50", "steps200")) + bench(["EI2, SCA for FFAM"])
    file.write_text(json.dumps(made))
    written = report.write(file)
    names = ["editbench_test.md", *(f"editbench_test_{name}.png" for name in (
        "flicker_equal", "background", "shift", "steps", "ablations"))]
    assert [path.name for path in written] == names
    text = written[0].read_text(encoding="utf-8")
    assert "## Ablations" in text and all(f"]({name})" in text for name in names[1:])
    assert cells(text, "EI2")[0] == "12"
    for picture in written[1:]:
        assert picture.stat().st_size <= 150_000
        pixels = np.asarray(Image.open(picture).convert("L"))
        assert pixels.shape[1] > 1000 and pixels.mean() > 200 and pixels.min() < 80


def test_plots_tell_every_method_apart(tmp_path):
    compared = [method.name for method in COMPARED]
    looks = list(zip(plots.colors_of(compared).values(), plots.markers_of(compared).values(),
                     [name in plots.HOLLOW for name in compared]))
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
    made = bench(["EI2"], budgets=("equal", "steps50", "steps200"))
    assert plots.success_against_steps(made, tmp_path / "steps.png")
    again = [one | {"budget": "best"} for one in made if one["budget"] == "steps50"]
    fixed, lines = plots._steps_series(again + made)
    assert fixed == {"learning_rate": 1e-3, "cfg": 2.0} and list(lines) == ["EI2"]
    assert {steps: len(points) for steps, points in lines["EI2"].items()} == {50: 12, 100: 12, 200: 12}
    for one in made:
        one["settings"]["cfg"] = float(one["settings"]["steps"])
    assert not plots.success_against_steps(made, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


# --- contact sheets


def test_strip_names_are_safe_and_apart():
    one = row("EI2, SCA for FFAM", clip="grow_shrink-3", edit="shape_color", seed=2)
    assert sheets.strip_name(one) == "ei2-sca-for-ffam_equal_grow-shrink-3_shape-color_2.png"
    assert len({sheets.strip_name(one) for one in bench()}) == len(bench())


def test_a_strip_comes_back_frame_by_frame(tmp_path):
    frames = render(list(split("test")[0].scenes))
    sheets.save_strip(frames, tmp_path / "new" / "strip.png")
    assert Image.open(tmp_path / "new" / "strip.png").size == (len(frames) * 128, 128)
    back = sheets.load_strip(tmp_path / "new" / "strip.png")
    assert back.shape == frames.shape and (back - frames).abs().max() <= 0.5 / 255 + 1e-6
    with pytest.raises(ValueError, match="a strip of 100-pixel frames"):
        sheets.load_strip(tmp_path / "new" / "strip.png", width=100)


def test_best_median_and_worst():
    made = [row(clip=str(i), psnr=psnr) for i, psnr in enumerate([14.0, 30.0, 21.0, 17.0, 25.0])]
    made += [row("Tune-A-Video", clip="9", psnr=50.0), row(budget="best", clip="9", psnr=50.0)]
    found = sheets.best_median_worst(made)
    assert {place: one["psnr"] for place, one in found.items()} == {"best": 30.0, "median": 21.0, "worst": 14.0}
    with pytest.raises(ValueError, match="no rows of EI2 at budget 'steps50'"):
        sheets.best_median_worst(made, budget="steps50")


def test_sheets_show_source_truth_and_edits(tmp_path):
    """The "edits" are flat pictures, so that each can be found again at its place."""
    clips = split("test")
    made = [one for one in bench(["Tune-A-Video", "EI2"]) if one["clip"] in ("line-1", "circle-1")]
    grey = {"Tune-A-Video": 0.25, "EI2": 0.75}
    for one in made:
        frames = 16 if one["clip"] == "circle-1" else 8
        sheets.save_strip(torch.full((frames, 3, 128, 128), grey[one["method"]]), tmp_path / sheets.strip_name(one))
    files = sheets.write(made, clips, tmp_path, tmp_path, "editbench_test")
    assert [file.name for file in files] == [f"editbench_test_{p}.png" for p in ("best", "median", "worst")]

    best = sheets.best_median_worst(made)["best"]
    clip, edit = sheets.find_edit(clips, best)
    pixels = np.asarray(Image.open(files[0]).convert("RGB")).astype(float) / 255
    assert pixels.shape[:2] == (62 + 4 * 132 + 4, 150 + 8 * 132), "four rows of eight frames, long clips too"
    left = 150
    picture = lambda line: pixels[62 + 4 + line * 132:][:128, left:left + 128].transpose(2, 0, 1)
    for line, scenes in enumerate((clip.scenes, edit.target_scenes)):
        assert np.abs(picture(line) - render(list(scenes[:1]))[0].numpy()).mean() < 0.02
    assert picture(2).mean() == pytest.approx(0.25, abs=0.02) and picture(3).mean() == pytest.approx(0.75, abs=0.02)


def test_sheets_show_what_was_measured_with_control(tmp_path):
    """Of what is not tuned there is one seed; a method with control that was not measured is left out."""
    clip = split("test")[0]
    of = dict(clip=clip.name, edit=clip.edits[0].kind)
    made = [row("Tune-A-Video", seed=1, **of), row(seed=1, **of), row("EI2 + control", seed=1, **of)]
    made += [row("Vid2Vid-zero", seed=0, **of), row("EI2 + control + blend", seed=0, **of)]
    grey = {"Tune-A-Video": 0.2, "Vid2Vid-zero": 0.4, "EI2": 0.6, "EI2 + control": 0.8}
    for one in made:
        level = grey.get(one["method"], 0.0)
        sheets.save_strip(torch.full((len(clip.scenes), 3, 128, 128), level), tmp_path / sheets.strip_name(one))
    sheets.case_sheet(made, made[1], split("test"), tmp_path, tmp_path / "sheet.png")
    pixels = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(float) / 255
    assert pixels.shape[0] == 62 + 6 * 132 + 4
    levels = [pixels[62 + 4 + line * 132:][:128, 150:278].mean() for line in range(2, 6)]
    assert levels == pytest.approx([0.2, 0.4, 0.6, 0.8], abs=0.02)


def test_a_missing_strip_is_named(tmp_path):
    made = [row("Tune-A-Video"), row()]
    clips = split("test")
    made = [one | {"edit": clips[0].edits[0].kind} for one in made]
    with pytest.raises(ValueError, match="tune-a-video_equal_line-1.*is missing: run the benchmark"):
        sheets.case_sheet(made, made[1], clips, tmp_path, tmp_path / "sheet.png")
    with pytest.raises(ValueError, match="Per-frame has no row for"):
        sheets.case_sheet(made, made[1], clips, tmp_path, tmp_path / "sheet.png", methods=("Per-frame",))
    with pytest.raises(ValueError, match="No clip 'nowhere'"):
        sheets.find_edit(clips, row(clip="nowhere"))
