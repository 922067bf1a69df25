"""EditBench's tables, from rows whose right answers are computed by hand here."""

from __future__ import annotations

from benchmarks.editbench import report, tables

from .made_rows import row


def cells(text: str, method: str, table: int = 0) -> list[str]:
    """What a method's row says in the n-th table, without the method's name."""
    lines = [line for line in text.splitlines() if line.startswith(f"| {method} |")]
    return [part.strip() for part in lines[table].strip("|").split("|")][1:]


def headings(text: str, table: int = 0) -> list[str]:
    lines = [line for line in text.splitlines() if line.startswith("| method |")]
    return [part.strip() for part in lines[table].strip("|").split("|")][1:]


def constant_bench() -> list[dict]:
    """EI2 is the same amount better on every clip, so that every resample gives the same: intervals without width."""
    theirs = [
        row("Tune-A-Video", clip=c, success=s, flicker=f, psnr=10.0 + i)
        for i, (c, s, f) in enumerate([("a", 0.25, 0.04), ("b", 0.5, 0.08), ("c", 0.75, 0.06)])
    ]
    ours = [
        entry | {"method": "EI2", "success": entry["success"] + 0.125, "flicker": entry["flicker"] / 2}
        for entry in theirs
    ]
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
    results = []
    for clip, difference in (("a", -0.1), ("b", 0.3)):
        for seed in range(20):
            results += [row("Tune-A-Video", clip=clip, seed=seed), row(clip=clip, seed=seed, success=0.5 + difference)]
    assert cells(report.markdown(results), "EI2")[1] == "60.0 (+10.0 [-10.0, +30.0])"


def test_seconds_are_medians():
    results = [row(clip=clip, seconds_tune=seconds) for clip, seconds in (("a", 1.0), ("b", 2.0), ("c", 600.0))]
    text = report.markdown(results)
    assert cells(text, "EI2", 1)[headings(text, 1).index("tune, s ↓")] == "2.0"


def test_budgets_are_compared_apart():
    results = constant_bench() + [entry | {"budget": "best", "success": 1.0} for entry in constant_bench()]
    text = report.markdown(results)
    assert text.index("Equal budget") < text.index("Best budget")
    assert cells(text, "EI2", 0)[1].startswith("62.5 (**+12.5")
    assert cells(text, "EI2", 2)[1] == "100.0 (+0.0 [+0.0, +0.0])"


def test_rows_without_a_partner_are_counted_but_not_compared():
    text = report.markdown([*constant_bench(), row(clip="d", success=0.625)])
    assert cells(text, "EI2")[:2] == ["4 (3)", "62.5 (**+12.5 [+12.5, +12.5]**)"]


def test_what_was_not_measured_is_a_dash_and_one_clip_has_no_interval():
    results = [row("Tune-A-Video", psnr=None), row(psnr=None, success=1.0)]
    assert cells(report.markdown(results), "EI2")[1:4] == ["100.0", "50.0", "–"]


def test_no_ratio_to_a_reference_of_zero():
    results = constant_bench()
    for entry in results:
        entry["mean_shift"] *= entry["method"] == "EI2"
    assert cells(report.markdown(results), "EI2", 1)[1] == "0.200"


def test_settings_are_said_once_where_they_are_the_same():
    results = constant_bench()
    assert "All methods: steps 100, learning rate 0.001, cfg 2." in report.markdown(results)
    results[0]["settings"] = results[0]["settings"] | {"cfg": 5.0}
    assert "* EI2: steps 100, learning rate 0.001, cfg 5" in report.markdown(results)


def test_ablations_are_compared_with_what_they_change_a_part_of_and_only_at_their_budgets():
    results = constant_bench() + [entry | {"budget": "best"} for entry in constant_bench()]
    ours = [entry for entry in constant_bench() if entry["method"] == "EI2"]
    results += [entry | {"method": "EI2, dense", "success": 0.25} for entry in ours]
    text = report.ablations(results)
    assert "Tune-A-Video" not in text and "Best budget" not in text
    assert cells(text, "EI2")[1] == "62.5"
    fewer = [entry for entry in results if (entry["method"], entry["clip"]) != ("EI2, dense", "c")]
    assert cells(report.ablations(fewer), "EI2")[:2] == ["2", "50.0"], "EI2 on the same edits"
    assert (
        cells(text, "EI2, dense")[1].startswith("25.0 (") and cells(text, "EI2, dense")[2] == "50.0 (+0.0 [+0.0, +0.0])"
    )
    assert report.ablations(constant_bench()) == ""


def test_summary_sorts_measures_by_what_the_intervals_say():
    text = report.summary(constant_bench())
    assert "(3 edits of 3 clips)" in text
    twice = constant_bench() + [entry | {"seed": 7} for entry in constant_bench()]
    assert "(3 edits of 3 clips, 2 seeds)" in report.summary(twice)
    better, undecided = text.split("better: ")[1].split("; undecided: ")
    assert "edit success +12.5 [+12.5, +12.5]" in better and "flicker ×0.50" in better and "PSNR" not in better
    assert "PSNR +0.00" in undecided and "worse" not in text
    worse = report.summary(constant_bench(), method="Tune-A-Video", reference="EI2")
    assert "worse: edit success -12.5" in worse and "flicker ×2.00" in worse and "better" not in worse


def controlled_bench() -> list[dict]:
    """EI2 with control keeps 10 points and 2 dB more than every other method, at 5 points less success than EI2."""
    results = constant_bench()
    for name in ("Video-P2P", "Vid2Vid-zero"):
        results += [entry | {"method": name} for entry in results if entry["method"] == "Tune-A-Video"]
    ours = [entry for entry in results if entry["method"] == "EI2"]
    more = {"preservation": 0.6, "psnr_background": 27.0, "source_psnr": 31.0}
    return results + [entry | {"method": "EI2 + control", "success": entry["success"] - 0.05} | more for entry in ours]


def test_control_is_compared_with_every_other_method():
    text = report.page(controlled_bench(), "Title", {})
    part = text.split("### EI2 + control, budget equal")[1]
    against = {line.split("|")[1].strip(): line for line in part.splitlines() if line.startswith("| ")}
    assert list(against) == ["against", "Tune-A-Video", "Video-P2P", "Vid2Vid-zero", "EI2"]
    for name in list(against)[1:]:
        assert "**+10.0 [+10.0, +10.0]**" in against[name] and "**+2.00 [+2.00, +2.00]**" in against[name]
    assert "| **-5.0 [-5.0, -5.0]** |" in against["EI2"] and "| **+7.5 [+7.5, +7.5]** |" in against["Tune-A-Video"]
    assert "| +0.00 [+0.00, +0.00] |" in against["EI2"], "no difference is not bold"
    column = headings(text, 1).index("PSNR of the source sampled beside it, dB ↑")
    assert cells(text, "EI2 + control", 1)[column] == "31.00" and cells(text, "EI2", 1)[column] == "–"
    assert "Ablations" not in text and "Values of the control" not in text
    assert "Against each method" not in report.page(constant_bench(), "Title", {}), "there is only one other"


def test_a_method_is_also_compared_with_the_references_other_settings():
    better = [entry | {"budget": "cfg 3", "success": 0.75} for entry in constant_bench()]
    text = report.page(constant_bench() + better, "Title", {})
    line = next(line for line in text.splitlines() if line.startswith("| Tune-A-Video, cfg 3 | 3 |"))
    assert "| -12.5 [-37.5, +12.5] |" in line and text.count("| Tune-A-Video, ") == 1


def test_carried_edits_have_a_section_of_their_own():
    """Elsewhere a method that carries is the plain one, which would hide what carrying costs and brings."""
    results = constant_bench()
    for entry in [entry for entry in results if entry["method"] == "EI2"]:
        more = {"carried": entry["clip"] != "c"} | ({"seconds_edit": 90.0} if entry["clip"] != "c" else {})
        results.append(entry | more | {"method": "EI2 + key frame"})
    text = report.page(results, "Title", {})
    part = text.split("## Where a frame was carried")[1]
    assert cells(part, "EI2")[0] == cells(part, "Tune-A-Video")[0] == cells(part, "EI2 + key frame")[0] == "2"
    seconds = headings(part, 1).index("edit, s ↓")
    assert cells(part, "EI2 + key frame", 1)[seconds] == "90.0" and cells(part, "EI2", 1)[seconds] != "90.0"
    assert "Where a frame was carried" not in report.page(constant_bench(), "Title", {})


def test_tried_controls_are_compared_with_ei2_as_they_were_tried_and_are_no_ablations():
    results = controlled_bench()
    tried = [entry | {"method": "EI2, control 0.4 / 0.5"} for entry in results if entry["method"] == "EI2 + control"]
    text = report.page(results + tried, "Title", {})
    assert "## Ablations" not in text
    part = text.split("## Values of the control")[1]
    assert cells(part, "EI2, control 0.4 / 0.5")[1] == "57.5 (**-5.0 [-5.0, -5.0]**)" and "Tune-A-Video" not in part


def test_methods_are_told_by_name_not_by_their_settings():
    """All rows but the tuned and untuned have the same budget; what control does is the method's own."""
    results = [row(name) for name in ("EI2", "EI2 + control")]
    results[1]["settings"] = results[1]["settings"] | {"control": {"cross_replace": 0.2}, "null_text": 1}
    assert tables.all_settings({"EI2": results[:1], "EI2 + control": results[1:]}).startswith("All methods: steps 100")
