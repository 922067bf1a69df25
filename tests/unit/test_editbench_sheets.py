"""EditBench's contact sheets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.editbench import sheets
from benchmarks.editbench.clips import split
from miniature.scene import render

from .made_rows import bench, row


def test_strip_names_are_safe_and_apart():
    entry = row("EI2, SCA for FFAM", clip="grow_shrink-3", edit="shape_color", seed=2)
    assert sheets.strip_name(entry) == "ei2-sca-for-ffam_equal_grow-shrink-3_shape-color_2.png"
    assert len({sheets.strip_name(entry) for entry in bench()}) == len(bench())


def test_a_strip_comes_back_frame_by_frame(tmp_path):
    frames = render(split("test")[0].views)
    sheets.save_strip(frames, tmp_path / "new" / "strip.png")
    assert Image.open(tmp_path / "new" / "strip.png").size == (len(frames) * 128, 128)
    back = sheets.load_strip(tmp_path / "new" / "strip.png")
    assert back.shape == frames.shape and (back - frames).abs().max() <= 0.5 / 255 + 1e-6
    with pytest.raises(ValueError, match="a strip of 100-pixel frames"):
        sheets.load_strip(tmp_path / "new" / "strip.png", width=100)


def test_best_median_and_worst():
    results = [row(clip=str(i), psnr=psnr) for i, psnr in enumerate([14.0, 30.0, 21.0, 17.0, 25.0])]
    results += [row("Tune-A-Video", clip="9", psnr=50.0), row(budget="best", clip="9", psnr=50.0)]
    ranks = sheets.best_median_worst(results)
    assert {place: entry["psnr"] for place, entry in ranks.items()} == {"best": 30.0, "median": 21.0, "worst": 14.0}
    with pytest.raises(ValueError, match="no rows of EI2 at budget 'steps50'"):
        sheets.best_median_worst(results, budget="steps50")


def test_sheets_show_source_truth_and_edits(tmp_path):
    """The "edits" are flat pictures, so that each can be found again at its place."""
    clips = split("test")
    results = [entry for entry in bench(["Tune-A-Video", "EI2"]) if entry["clip"] in ("line-1", "circle-1")]
    grey = {"Tune-A-Video": 0.25, "EI2": 0.75}
    for entry in results:
        frames = 16 if entry["clip"] == "circle-1" else 8
        sheets.save_strip(torch.full((frames, 3, 128, 128), grey[entry["method"]]), tmp_path / sheets.strip_name(entry))
    files = sheets.write(results, clips, tmp_path, tmp_path, "editbench_test")
    assert [file.name for file in files] == [f"editbench_test_{p}.png" for p in ("best", "median", "worst")]

    best = sheets.best_median_worst(results)["best"]
    clip, edit = sheets.find_edit(clips, best)
    pixels = np.asarray(Image.open(files[0]).convert("RGB")).astype(float) / 255
    assert pixels.shape[:2] == (62 + 4 * 132 + 4, 150 + 8 * 132), "four rows of eight frames, long clips too"
    left = 150
    picture = lambda line: pixels[62 + 4 + line * 132 :][:128, left : left + 128].transpose(2, 0, 1)
    for line, views in enumerate((clip.views, edit.views)):
        assert np.abs(picture(line) - render(views[:1])[0].numpy()).mean() < 0.02
    assert picture(2).mean() == pytest.approx(0.25, abs=0.02) and picture(3).mean() == pytest.approx(0.75, abs=0.02)


def test_sheets_show_what_was_measured_with_control(tmp_path):
    """Of what is not tuned there is one seed; a method with control that was not measured is left out."""
    clip = split("test")[0]
    of = dict(clip=clip.name, edit=clip.edits[0].kind)
    results = [row("Tune-A-Video", seed=1, **of), row(seed=1, **of), row("EI2 + control", seed=1, **of)]
    results += [row("Vid2Vid-zero", seed=0, **of), row("EI2 + control + blend", seed=0, **of)]
    grey = {"Tune-A-Video": 0.2, "Vid2Vid-zero": 0.4, "EI2": 0.6, "EI2 + control": 0.8}
    for entry in results:
        level = grey.get(entry["method"], 0.0)
        sheets.save_strip(torch.full((len(clip.views), 3, 128, 128), level), tmp_path / sheets.strip_name(entry))
    sheets.case_sheet(results, results[1], split("test"), tmp_path, tmp_path / "sheet.png")
    pixels = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(float) / 255
    assert pixels.shape[0] == 62 + 6 * 132 + 4
    levels = [pixels[62 + 4 + line * 132 :][:128, 150:278].mean() for line in range(2, 6)]
    assert levels == pytest.approx([0.2, 0.4, 0.6, 0.8], abs=0.02)


def test_a_missing_strip_is_named(tmp_path):
    results = [row("Tune-A-Video"), row()]
    clips = split("test")
    results = [entry | {"edit": clips[0].edits[0].kind} for entry in results]
    with pytest.raises(ValueError, match="tune-a-video_equal_line-1.*is missing: run the benchmark"):
        sheets.case_sheet(results, results[1], clips, tmp_path, tmp_path / "sheet.png")
    with pytest.raises(ValueError, match="Per-frame has no row for"):
        sheets.case_sheet(results, results[1], clips, tmp_path, tmp_path / "sheet.png", methods=("Per-frame",))
    with pytest.raises(ValueError, match="No clip 'nowhere'"):
        sheets.find_edit(clips, row(clip="nowhere"))
