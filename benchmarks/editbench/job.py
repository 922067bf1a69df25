"""One job of EditBench: a clip is learned once by one method and edited at every budget that this learning serves.

It runs through the pack's own functions in a real ComfyUI in this process.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from devtools import in_process
from ei2.measures import psnr
from miniature.judge import Judge
from miniature.world import render

from . import clips
from .memory import peak_bytes, start_peak, uses_gpu
from .methods import METHODS, Budget
from .scores import PSNR_LIMIT, score
from .sheets import save_strip, strip_name

GIVEN = ("source", "target", "settings")  # a row with others than its job's is out of date
PRECISION = "bf16"  # of the tuning, as on a GPU; CPUs with bf16 units are faster with it, too


@dataclass(frozen=True)
class Job:
    """`budgets`: of one learning rate, so that those of fewer steps are stops on the way of the longest."""

    split: str
    method: str
    clip: str
    seed: int
    budgets: tuple[Budget, ...]

    def given(self) -> dict[tuple, dict]:
        """What the rows it makes are made from (`GIVEN`), by what tells them apart (`rows.IDENTITY`)."""
        clip = find_clip(self.split, self.clip)
        return {
            (self.method, budget.name, self.clip, edit.kind, self.seed): {
                "source": clip.source_prompt,
                "target": edit.target_prompt,
                "settings": budget.settings(METHODS[self.method]),
            }
            for budget in self.budgets
            for edit in clip.edits
        }


def find_clip(split: str, name: str) -> clips.Clip:
    return next(clip for clip in clips.clips_of(split) if clip.name == name)


class Bench:
    """The models, loaded once per process."""

    def __init__(self, device: str, threads: int):
        torch.set_num_threads(threads)
        self.on_gpu = uses_gpu(device)
        in_process.import_host(device)
        in_process.import_pack()
        pack = in_process.pack
        self.inflation, self.sampling = pack("nodes.host.inflation"), pack("nodes.host.sampling")
        self.tuning, self.shift = pack("nodes.host.tuning"), pack("nodes.host.shift")
        self.settings, self.tune_settings = pack("ei2.settings"), pack("ei2.tuning").TuneSettings
        with torch.inference_mode():
            self.model, self.clip_model, self.vae = pack("nodes.host.miniature").load_miniature()
        self.judge = Judge.load()

    def run(self, job: Job, strips: Path) -> list[dict]:
        """The job's rows; the edited frames go to the folder `strips`."""
        with torch.inference_mode():
            return self._run(job, strips)

    def _run(self, job: Job, strips: Path) -> list[dict]:
        clip, method = find_clip(job.split, job.clip), METHODS[job.method]
        frames = render(list(clip.scenes))
        latents = self.vae.encode(frames.movedim(1, -1))
        source = self._encode(clip.source_prompt)
        settings = self.settings.PRESETS[method.preset]
        settings = type(settings)(**{**settings.to_dict(), **dict(method.inflation)})
        inflated = self.inflation.inflate(self.model, settings)
        learned = self._learn(job, inflated, latents, source) if method.tuned else {}

        rows, inversions, edits, given = [], {}, {}, job.given()
        for budget in job.budgets:
            seconds_tune, peak, tune = learned.get(budget.steps, (0.0, 0, None))
            inverted = (budget.steps, budget.strength, budget.ddim_steps)
            if inverted not in inversions:
                start_peak(self.on_gpu)
                model = self.inflation.apply_tune(inflated, tune.scaled(budget.strength)) if tune else inflated
                inversions[inverted] = self._invert(method, model, latents, source, budget.ddim_steps, frames)
            model, noise, sigmas, from_inversion = inversions[inverted]
            for edit in clip.edits:
                same = (*inverted, budget.cfg, edit.kind)  # budgets may agree: a method's best may be the equal one
                if same not in edits:
                    edits[same] = self._edit(model, noise, sigmas, clip, edit, budget.cfg)
                result, scores, seconds_edit, peak_edit = edits[same]
                row = {
                    "split": job.split,
                    "method": job.method,
                    "budget": budget.name,
                    "clip": clip.name,
                    "edit": edit.kind,
                    "frames": len(frames),
                    "seed": job.seed,
                    **scores,
                    **from_inversion,
                    "seconds_tune": round(seconds_tune, 2),
                    "seconds_edit": round(seconds_edit, 2),
                    "peak_bytes": max(peak, peak_edit),
                    "motion": clip.motion,
                    **given[job.method, budget.name, clip.name, edit.kind, job.seed],
                }
                rows.append({key: round(value, 6) if isinstance(value, float) else value for key, value in row.items()})
                save_strip(result, strips / strip_name(row))
        return rows

    def _edit(self, model, noise, sigmas, clip: clips.Clip, edit: clips.Edit, cfg: float) -> tuple:
        """The edited frames `f 3 h w`, their scores, seconds and peak memory."""
        begin = time.perf_counter()
        target, empty = self._encode(edit.target_prompt), self._encode("")
        result = self._decode(self.sampling.sample(model, noise, target, empty, cfg, sigmas))
        seconds, peak = time.perf_counter() - begin, peak_bytes(self.on_gpu)
        return result, score(result, clip, edit, self.judge), seconds, peak

    def _learn(self, job: Job, inflated, latents, source) -> dict[int, tuple]:
        """Seconds, peak memory and what was learned, by number of steps."""
        stops = {budget.steps for budget in job.budgets}
        rate = job.budgets[0].learning_rate
        settings = self.tune_settings(max(stops), rate, job.seed, PRECISION)
        learned = {}
        start_peak(self.on_gpu)
        begin = time.perf_counter()

        def keep(step, tune):
            learned[step] = (time.perf_counter() - begin, peak_bytes(self.on_gpu), tune)

        self.tuning.tune_model(inflated, latents, source, settings, "auto", lambda step, loss: None, keep, stops)
        return learned

    def _invert(self, method, model, latents, source, steps: int, frames) -> tuple:
        """The model to edit with, the noise, its sigmas, and the part of a row that is the same for every edit."""
        inverter = model
        if method.inversion:
            inverter = self.inflation.inflate(self.model, self.settings.InflationSettings(**dict(method.inversion)))
        begin = time.perf_counter()
        noise, sigmas = self.sampling.invert(inverter, latents, source, steps, refine=0)
        seconds = time.perf_counter() - begin
        restored = self._decode(self.sampling.sample(inverter, noise, source, source, 1.0, sigmas))
        shift = self.shift.covariate_shift(model, latents, source)
        return model, noise, sigmas, {
            "mean_shift": shift.average("mean"),
            "log_variance_shift": shift.average("log_std"),
            "module_mean_shift": shift.average("module_mean"),
            "module_log_variance_shift": shift.average("module_log_std"),
            "block_mean_shift": [round(value, 5) for value in shift.mean],
            "block_log_variance_shift": [round(value, 5) for value in shift.log_std],
            "reconstruction_psnr": min(psnr(restored, frames), PSNR_LIMIT),
            "seconds_invert": round(seconds, 2),
        }

    def _encode(self, text: str) -> list:
        return self.clip_model.encode_from_tokens_scheduled(self.clip_model.tokenize(text))

    def _decode(self, latents) -> torch.Tensor:
        """Pictures `f 3 h w` in 0..1."""
        return self.vae.decode(latents).movedim(-1, 1).float().cpu().clamp(0, 1)
