"""EditBench's rows as tests make them up."""

from __future__ import annotations

import random

import numpy as np

from benchmarks.editbench.clips import split
from benchmarks.editbench.methods import COMPARED

METHODS = [method.name for method in COMPARED if not method.control]


def row(method="EI2", budget="equal", clip="line-1", edit="color", seed=0, **measured) -> dict:
    """A row with everything a results file has."""
    steps = {"equal": 100, "best": 200}.get(budget) or int(budget.removeprefix("steps"))
    return {
        "method": method,
        "budget": budget,
        "clip": clip,
        "edit": edit,
        "seed": seed,
        "frames": 8,
        "motion": "line",
        "success": 0.5,
        "preservation": 0.5,
        "psnr": 20.0,
        "psnr_object": 15.0,
        "psnr_background": 25.0,
        "flicker": 0.05,
        "centroid_error": 4.0,
        "mean_shift": 0.2,
        "log_variance_shift": 0.1,
        "block_mean_shift": [0.1, 0.3],
        "block_log_variance_shift": [0.05, 0.15],
        "reconstruction_psnr": 28.0,
        "seconds_tune": 60.0,
        "seconds_invert": 5.0,
        "seconds_edit": 6.0,
        "peak_bytes": 1_500_000_000,
        "settings": {"steps": steps, "learning_rate": 1e-3, "cfg": 2.0, "inflation": {}},
        **measured,
    }


def bench(methods=METHODS, budgets=("equal",), seed=0, every=4) -> list[dict]:
    """Rows of every method on every fourth clip of `test`, drawn around levels that differ by method and steps."""
    rng, results = random.Random(seed), []
    for budget in budgets:
        for m, method in enumerate(methods):
            for clip in split("test")[::every]:
                for edit in clip.edits:
                    entry = row(method, budget, clip.name, edit.kind)
                    untuned = method == "Vid2Vid-zero attention"
                    growth = 0.0 if untuned else 0.07 * np.log2(entry["settings"]["steps"] / 25)
                    draw = lambda mean, spread: min(max(rng.gauss(mean, spread), 0.0), 1.0)
                    entry |= {
                        "success": draw(0.3 + 0.09 * m + growth, 0.2),
                        "psnr": rng.gauss(17 + m + 8 * growth, 2),
                        "flicker": 0.02 + draw(0.05 - 0.006 * m, 0.01),
                        "seconds_tune": 0.0 if untuned else 60.0,
                        "block_mean_shift": [draw(0.3 / (m + 1) * (1 + i / 8), 0.03) for i in range(16)],
                        "block_log_variance_shift": [draw(0.2 / (m + 1) * (2 - i / 16), 0.02) for i in range(16)],
                    }
                    if method == "Per-frame":
                        entry |= {
                            "mean_shift": 0.0,
                            "log_variance_shift": 0.0,
                            "block_mean_shift": [0.0] * 16,
                            "block_log_variance_shift": [0.0] * 16,
                        }
                    results.append(entry)
    return results
