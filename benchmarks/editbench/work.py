"""The work of one job: what cases share (the tuning, an inversion, an edit) is done once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.machine import peak_bytes, start_peak
from ei2.measures import psnr
from miniature.world import render

from .job import Case, Job, find_clip
from .methods import METHODS, ControlSettings
from .scores import PSNR_LIMIT, score
from .sheets import save_strip, strip_name

if TYPE_CHECKING:
    from .bench import Bench

PRECISION = "bf16"  # of the tuning, as on a GPU; CPUs with bf16 units are faster with it, too


@dataclass(frozen=True)
class Cost:
    """What a stretch of work took: seconds, and the peak of the memory in bytes."""

    seconds: float = 0.0
    peak: int = 0


@dataclass(frozen=True)
class Way:
    """How a clip is inverted, of all that may differ within a job. `inversion`, `inverted_with`: as a method's;
    `steps`, `strength`, `ddim_steps`: as a budget's."""

    inversion: tuple[tuple[str, Any], ...]
    inverted_with: str
    steps: int
    strength: float
    ddim_steps: int


@dataclass(frozen=True)
class Inverted:
    """`model`: to edit with; `inverter`: to invert with; `trajectory`: the latents passed, from clean to noise;
    `measured`: the part of a row that is the same for every edit."""

    model: Any
    inverter: Any
    noise: torch.Tensor
    sigmas: torch.Tensor
    trajectory: list[torch.Tensor]
    measured: dict
    cost: Cost


class Work:
    """One clip, learned with one tuning."""

    def __init__(self, bench: Bench, job: Job):
        self.bench, self.job, self.clip = bench, job, find_clip(job.split, job.clip)
        self.frames = render(list(self.clip.scenes))
        self.latents = bench.vae.encode(self.frames.movedim(1, -1))
        self.prompts = {"source": bench.encode(self.clip.source_prompt), "empty": bench.encode("")}
        method = METHODS[job.cases[0].method]
        options = {**bench.settings.PRESETS[method.preset].to_dict(), **dict(method.inflation)}
        self.inflated = bench.inflation.inflate(bench.model, bench.settings.InflationSettings(**options))
        self.learned = self._learn() if method.tuned else {}
        # the same arguments give the same: a method's best budget may be the equal one
        self.invert, self.optimize, self.edit = cache(self._invert), cache(self._optimize), cache(self._edit)

    def rows(self, case: Case, strips: Path) -> list[dict]:
        """A row per edit; the edited frames go to the folder `strips`."""
        method, budget = METHODS[case.method], case.budget
        way = Way(method.inversion, method.inverted_with, budget.steps, budget.strength, budget.ddim_steps)
        inverted = self.invert(way)
        _, optimizing = self.optimize(way, method.null_text, budget.cfg)
        tuning = self.learned[budget.steps][1] if method.tuned else Cost()
        rows = []
        for (*_, edit, _), given in self.job.given_of(case).items():
            result, scores, editing = self.edit(way, method.null_text, method.control, budget.cfg, edit)
            row = {
                "split": self.job.split,
                "method": case.method,
                "budget": budget.name,
                "clip": self.clip.name,
                "edit": edit,
                "frames": len(self.frames),
                "seed": self.job.seed,
                **scores,
                **inverted.measured,
                "seconds_invert": round(inverted.cost.seconds + optimizing.seconds, 2),
                "seconds_tune": round(tuning.seconds, 2),
                "seconds_edit": round(editing.seconds, 2),
                "peak_bytes": max(cost.peak for cost in (tuning, inverted.cost, optimizing, editing)),
                "motion": self.clip.motion,
                **given,
            }
            rows.append({key: round(value, 6) if isinstance(value, float) else value for key, value in row.items()})
            save_strip(result, strips / strip_name(row))
        return rows

    def _learn(self) -> dict[int, tuple[Any, Cost]]:
        """What was learned, by number of steps."""
        stops = {case.budget.steps for case in self.job.cases}
        rate = self.job.cases[0].budget.learning_rate
        settings = self.bench.tune_settings(max(stops), rate, self.job.seed, PRECISION)
        learned, source = {}, self.prompts["source"]
        measure = self._measure()

        def loop(steps):
            for step in steps:
                if step.number in stops:
                    learned[step.number] = step.learned(), measure()

        self.bench.tuning.tune_model(self.inflated, self.latents, source, settings, "auto", loop)
        return learned

    def _invert(self, way: Way) -> Inverted:
        bench, prompt, trajectory = self.bench, self.prompts[way.inverted_with], []
        model = self.inflated
        if self.learned:
            model = bench.inflation.apply_tune(model, self.learned[way.steps][0].scaled(way.strength))
        inverter = model
        if way.inversion:
            inverter = bench.inflation.inflate(bench.model, bench.settings.InflationSettings(**dict(way.inversion)))
        measure = self._measure()
        noise, sigmas = bench.sampling.invert(
            inverter, self.latents, prompt, way.ddim_steps, 0, lambda latents: trajectory.append(latents.cpu())
        )
        cost = measure()
        restored = bench.decode(bench.sampling.sample(inverter, noise, prompt, prompt, 1.0, sigmas))
        shift = bench.shift.covariate_shift(model, self.latents, self.prompts["source"])
        measured = {
            "mean_shift": shift.average("mean"),
            "log_variance_shift": shift.average("log_std"),
            "module_mean_shift": shift.average("module_mean"),
            "module_log_variance_shift": shift.average("module_log_std"),
            "block_mean_shift": [round(value, 5) for value in shift.mean],
            "block_log_variance_shift": [round(value, 5) for value in shift.log_std],
            "reconstruction_psnr": min(psnr(restored, self.frames), PSNR_LIMIT),
        }
        return Inverted(model, inverter, noise, sigmas, trajectory, measured, cost)

    def _optimize(self, way: Way, inner_steps: int, cfg: float) -> tuple[Any, Cost]:
        """The inversion as the pack hands it on, with null-text embeddings if there are inner steps."""
        inverted, make = self.invert(way), self.bench.inversion.Inversion
        if not inner_steps:
            return make(inverted.noise, self.latents, inverted.sigmas), Cost()
        empty, host = self.prompts["empty"], self.bench.null_text
        measure = self._measure()
        embeddings, _ = host.null_text(
            inverted.inverter, inverted.trajectory[::-1], inverted.sigmas, self.prompts["source"], empty,
            self.bench.null_text_settings(inner_steps, cfg), precision=host.null_text_precision(inverted.inverter),
        )
        start = empty[0][0].detach().cpu().float()
        return make(inverted.noise, self.latents, inverted.sigmas, embeddings, start, cfg), measure()

    def _edit(self, way: Way, inner_steps: int, control: ControlSettings | None, cfg: float, kind: str) -> tuple:
        """The edited frames `f 3 h w`, what is measured of them, and the cost."""
        bench, inverted, empty = self.bench, self.invert(way), self.prompts["empty"]
        inversion, _ = self.optimize(way, inner_steps, cfg)
        edit = next(edit for edit in self.clip.edits if edit.kind == kind)
        measured = {}
        measure = self._measure()
        if control is None:
            target = bench.encode(edit.target_prompt)
            latents = bench.sampling.sample(inverted.model, inverted.noise, target, empty, cfg, inverted.sigmas)
        else:
            guide = bench.control(self.clip, edit, control)
            found = bench.guidance.sample_controlled(
                inverted.model, inverted.noise, inversion, guide, guide.target_conditioning, empty, cfg
            )
            latents = found.target
        result = bench.decode(latents)
        cost = measure()
        if control:
            measured["source_psnr"] = min(psnr(bench.decode(found.source), self.frames), PSNR_LIMIT)
        return result, {**score(result, self.clip, edit, bench.judge), **measured}, cost

    def _measure(self) -> Callable[[], Cost]:
        """Starts a stretch of work; what it returns tells the cost so far."""
        start_peak(self.bench.on_gpu)
        begin = time.perf_counter()
        return lambda: Cost(time.perf_counter() - begin, peak_bytes(self.bench.on_gpu))
