"""The work of one job. Everything that cases share (the tuning, an inversion, an edit) is done once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.bench import Bench, BenchClip, defaults_of
from benchmarks.machine import peak_bytes, start_peak
from devtools.in_process import pack
from ei2.measures import PSNR_LIMIT, psnr
from miniature.scene import render

from .clips import OBJECT, Clip, Edit, blend_words, find_clip
from .jobs import Case, Job
from .methods import METHODS, ControlSettings, Method
from .scores import score
from .sheets import save_strip, strip_name

PRECISION = "bf16"  # of the tuning, as on a GPU; also faster on CPUs with bf16 units


@dataclass(frozen=True)
class Cost:
    """Seconds (of a CPU, or of the wall clock with a GPU), and the peak of the memory in bytes."""

    seconds: float = 0.0
    peak: int = 0


@dataclass(frozen=True)
class Way:
    """Everything that may differ between the inversions of a job, from a method and its budget."""

    inversion: tuple[tuple[str, Any], ...]
    inverted_with: str
    steps: int
    strength: float
    ddim_steps: int


class Guidance(NamedTuple):
    """As EI2 Edit Sample has them."""

    cfg: float
    end: float


class Inverted(NamedTuple):
    """`model`: to edit with; `inverter`: to invert with; `measured`: the part of a row that all edits share."""

    model: Any
    inverter: Any
    inversion: Any
    measured: dict
    cost: Cost


class Work:
    """One clip, learned with one tuning."""

    def __init__(self, bench: Bench, job: Job):
        self.bench, self.job, self.clip = bench, job, find_clip(job.split, job.clip)
        self.video = BenchClip(bench, self.clip.views, self.clip.source_prompt)
        method = METHODS[job.cases[0].method]
        self.inflated = bench.inflate(method.preset, **dict(method.inflation))
        self.learned = self._learn() if method.tuned else {}
        # cached by their arguments: a method's best budget may be the equal one
        self.invert, self.optimize = cache(self._invert), cache(self._optimize)
        self.edit, self.plain = cache(self._edit), cache(self._plain)

    def rows(self, case: Case, strips: Path) -> list[dict]:
        """A row per edit; the edited frames go to the folder `strips`."""
        method, budget, rows = METHODS[case.method], case.budget, []
        way = Way(method.inversion, method.inverted_with, budget.steps, budget.strength, budget.ddim_steps)
        inverted = self.invert(way)
        guidance = Guidance(budget.cfg, budget.guidance_end)
        _, optimizing = self.optimize(way, method.null_text, guidance.cfg)
        tuning = self.learned[budget.steps][1] if method.tuned else Cost()
        for (*about, edit, seed), inputs in self.job.inputs_of(case).items():
            pictures, scores, editing = self.edit(way, replace(method, name=""), guidance, edit)
            row = {
                "split": self.job.split,
                **dict(zip(("method", "budget", "clip"), about)),
                "edit": edit,
                "frames": len(self.video.frames),
                "seed": seed,
                **scores,
                **inverted.measured,
                "seconds_invert": round(inverted.cost.seconds + optimizing.seconds, 2),
                "seconds_tune": round(tuning.seconds, 2),
                "seconds_edit": round(editing.seconds, 2),
                "peak_bytes": max(cost.peak for cost in (tuning, inverted.cost, optimizing, editing)),
                "motion": self.clip.motion,
                **inputs,
            }
            rows.append({key: rounded(value) for key, value in row.items()})
            save_strip(pictures, strips / strip_name(row))
        return rows

    def _learn(self) -> dict[int, tuple[Any, Cost]]:
        """What was learned and its cost, by number of steps."""
        stops, learned, cost = {case.budget.steps for case in self.job.cases}, {}, self._cost()

        def loop(steps):
            for step in steps:
                if step.number in stops:
                    learned[step.number] = step.learned(), cost()

        budget = self.job.cases[0].budget
        settings = {"learning_rate": budget.learning_rate, "optimizer": budget.optimizer}
        settings |= {"seed": self.job.seed, "precision": PRECISION}
        self.bench.tune(self.inflated, self.video, max(stops), loop, **settings)
        return learned

    def _invert(self, way: Way) -> Inverted:
        bench, video, model = self.bench, self.video, self.inflated
        prompt = video.source if way.inverted_with == "source" else bench.empty
        if self.learned:
            model = bench.apply(model, self.learned[way.steps][0].scaled(way.strength))
        inverter = bench.inflate(**dict(way.inversion)) if way.inversion else model
        cost = self._cost()
        inversion = bench.invert(inverter, video.latents, prompt, way.ddim_steps)
        cost = cost()
        restored = bench.sample(inverter, inversion, prompt, 1.0)
        shift = pack("host.shift").covariate_shift(model, video.latents, video.source)
        measured = {
            "mean_shift": shift.average("mean"),
            "log_variance_shift": shift.average("log_std"),
            "module_mean_shift": shift.average("module_mean"),
            "module_log_variance_shift": shift.average("module_log_std"),
            "block_mean_shift": [round(value, 5) for value in shift.mean],
            "block_log_variance_shift": [round(value, 5) for value in shift.log_std],
            "reconstruction_psnr": min(psnr(restored, video.frames), PSNR_LIMIT),
        }
        return Inverted(model, inverter, inversion, measured, cost)

    def _optimize(self, way: Way, inner_steps: int, cfg: float) -> tuple[Any, Cost]:
        """The inversion, with null-text embeddings if there are inner steps, and the cost of the embeddings."""
        inverted, cost = self.invert(way), self._cost()
        if not inner_steps:
            return inverted.inversion, Cost()
        inputs = (inverted.inverter, inverted.inversion, self.video.source)
        return self.bench.with_null_text(*inputs, inner_steps, cfg), cost()

    def _edit(self, way: Way, method: Method, guidance: Guidance, kind: str) -> tuple:
        """The edited frames `f 3 h w`, their measures, and the cost."""
        bench, model = self.bench, self.invert(way).model
        inversion, _ = self.optimize(way, method.null_text, guidance.cfg)
        edit = next(edit for edit in self.clip.edits if edit.kind == kind)
        if method.control is None:
            latents, spent = self.plain(way, method.null_text, guidance, kind)
            cost, more = self._cost(), {}
            if method.key_frame:
                carried = edit.changes.keys() <= OBJECT and self._carried(way, method, latents, guidance, edit)
                more, latents = {"carried": carried is not False}, latents if carried is False else carried
            pictures, cost = bench.decode(latents), cost()
            cost = Cost(spent.seconds + cost.seconds, max(spent.peak, cost.peak))
            return pictures, {**score(pictures, self.clip, edit, bench.judge), **more}, cost
        cost = self._cost()
        guide, run = (
            controlled(bench, self.clip, edit, method.control),
            pack("host.controlled_sampling").sample_controlled,
        )
        options = guidance.cfg, None, guidance.end
        both = run(model, inversion.noise, inversion, guide, guide.target_conditioning, bench.empty, *options)
        pictures, cost = bench.decode(both.target), cost()
        source = min(psnr(bench.decode(both.source), self.video.frames), PSNR_LIMIT)
        return pictures, {**score(pictures, self.clip, edit, bench.judge), "source_psnr": source}, cost

    def _plain(self, way: Way, null_text: int, guidance: Guidance, kind: str) -> tuple:
        """The latents of an edit by guidance alone, and the cost."""
        edit = next(edit for edit in self.clip.edits if edit.kind == kind)
        prompt, cost = self.bench.encode(edit.target_prompt), self._cost()
        inputs = self.invert(way).model, self.optimize(way, null_text, guidance.cfg)[0], prompt, guidance.cfg
        latents = self.bench.sample_latents(*inputs, guidance_end=guidance.end)
        return latents, cost()

    def _carried(self, way: Way, method: Method, latents, guidance: Guidance, edit: Edit):
        """The edit's latents after EI2 Carry Key Frame; False if the edit changed too little, or too much, to carry."""
        bench, node = self.bench, pack("nodes.carry_key_frame").CarryKeyFrame
        model, inversion = self.invert(way).model, self.optimize(way, method.null_text, guidance.cfg)[0]
        middle = len(edit.views) // 2
        picture = render(edit.views[middle : middle + 1]).movedim(1, -1) if method.key_frame == "drawn" else None
        prompt, given = bench.encode(edit.target_prompt), {"samples": latents}
        connected = {"model": model, "inversion": inversion, "latent": given, "positive": prompt, "key_frame": picture}
        connected |= {"negative": bench.empty, "vae": bench.vae, "skip_unsuitable": True}
        connected |= {} if method.denoise is None else {"denoise": method.denoise}
        carried = node.execute(**{**defaults_of(node), **connected}).args[0]
        return False if carried is given else carried["samples"]

    def _cost(self) -> Callable[[], Cost]:
        """Starts to measure; the result returns the cost so far."""
        start_peak(self.bench.on_gpu)
        clock = time.perf_counter if self.bench.on_gpu else time.process_time  # other processes may use a CPU, too
        begin = clock()
        return lambda: Cost(clock() - begin, peak_bytes(self.bench.on_gpu))


def rounded(value: Any) -> Any:
    """A row's value as its file holds it: a measure that does not apply is null."""
    if not isinstance(value, float):
        return value
    return None if math.isnan(value) else round(value, 6)


def controlled(bench: Bench, clip: Clip, edit: Edit, settings: ControlSettings):
    """The attention control of an edit, from the pack's node."""
    source, target, read = clip.source_prompt, edit.target_prompt, pack("host.clip").read_prompt
    prompts = (read(bench.clip_model, text) for text in (source, target))
    _, mode = pack("ei2.token_alignment").token_map(*prompts, "auto")
    options = asdict(settings) | {
        "cross_replace": settings.cross_replace if mode == "replace" else settings.cross_refine
    }
    blend, words = settings.blend, blend_words(clip, edit)
    del options["cross_refine"], options["blend"]
    if blend and words:
        options["blend_source"], options["blend_target"] = map(", ".join, words)
        options |= {"blend_threshold": blend.threshold, "blend_start": blend.start}
    return bench.attention_control(source, target, **options)
