"""The steps that are timed: of tuning, inversion and edit, each as the pack does it and as the literal baseline."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO

import torch

from devtools import in_process

from . import models
from .literal import LiteralTuning, LiteralUNet, ddim
from .models import Subject
from .timing import LONG, SHORT, Contender, Marks

WHAT = ("tune", "invert", "edit")
OURS, RIVAL = "EI2", "Tune-A-Video"  # presets of the pack
LITERAL = "Tune-A-Video, literal"
ENCODED_ONCE = "Tune-A-Video, literal, encoded once"
LITERALS = (LITERAL, ENCODED_ONCE)
GUIDANCE = 7.5


@dataclass(frozen=True)
class Way:
    """How a step is done. `method`: a preset of the pack, or `LITERAL`; `dtype`: of the arithmetic; `checkpointing`:
    whether activations are recomputed in the backward pass, None where there is none."""

    method: str
    dtype: str
    checkpointing: bool | None = None


@dataclass(frozen=True)
class Place:
    """What a step works on: so many frames of so many pixels."""

    frames: int
    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.frames} × {self.width} × {self.height}"


class Steps:
    """Makes contenders of the pack's own functions and of the baseline, on one model."""

    def __init__(self, subject: Subject):
        import comfy.model_management
        import comfy.samplers

        pack = in_process.pack
        self.subject, self.management, self.samplers = subject, comfy.model_management, comfy.samplers
        self.inflation, self.tuning = pack("nodes.host.inflation"), pack("nodes.host.tuning")
        self.sampling, self.estimate = pack("nodes.host.sampling"), pack("nodes.host.memory_estimate")
        self.unet, self.ddim = pack("nodes.host.unet"), pack("ei2.ddim")
        self.tune_settings = pack("ei2.tuning").TuneSettings
        self.precision = pack("nodes.host.precision").training_precision(subject.model, "auto")
        with torch.inference_mode():
            presets = pack("ei2.settings").PRESETS
            self.inflated = {name: self.inflation.inflate(subject.model, presets[name]) for name in (OURS, RIVAL)}

    def ways(self, what: str, place: Place, full: bool) -> list[Way]:
        """The ways to do `what`; the literal one is the last. `full`: with other precisions, recomputation and the
        rival's preset, beside what the pack does by itself."""
        on_gpu = self.subject.on_gpu
        if what != "tune":
            model = self.subject.model
            own = SHORT.get(model.model.manual_cast_dtype or model.model_dtype(), "fp16")
            ours = [Way(OURS, own)] + ([Way(RIVAL, own)] if full else [])
            return [*ours, Way(LITERAL, "fp16" if on_gpu else "fp32")]
        auto, half = self._recomputes(place), "fp16" if on_gpu else "bf16"
        ways = [Way(OURS, self.precision, auto)]
        if not auto and (full or on_gpu):
            ways.append(Way(OURS, self.precision, True))
        if full:
            ways += [] if on_gpu else [Way(OURS, half, auto)]
            ways += [Way(RIVAL, self.precision, auto), Way(ENCODED_ONCE, half, True)]
        return [*ways, Way(LITERAL, half, True)]

    def contender(self, what: str, way: Way, place: Place) -> Contender:
        """Something to `race`."""
        run = self.runner(what, way, place)
        if self.subject.on_gpu:
            return Contender(way.method, run, leave=self.leave, alone=True)
        # the baseline makes its weights while it runs, the host's are there
        held = (lambda: 0) if way.method in LITERALS else self.subject.model.model_size
        return Contender(way.method, run, held)

    def runner(self, what: str, way: Way, place: Place) -> Callable[[int], list[float]]:
        """What does one step more than asked and returns the others' seconds."""
        literal = {"tune": self._literal_tune, "invert": self._literal_ddim, "edit": self._literal_ddim}
        ours = {"tune": self._tune, "invert": self._invert, "edit": self._edit}
        function = (literal if way.method in LITERALS else ours)[what]

        def run(steps: int) -> list[float]:
            first = 2 if function == self._invert else 1  # which is called before its first step, too
            marks = Marks(self.subject.on_gpu, first, first + steps)
            # nodes run under inference mode, training scripts do not; the host's progress bars are not for here
            with torch.inference_mode(way.method not in LITERALS), redirect_stderr(StringIO()):
                function(what, way, place, steps + 1, marks)
            return marks.seconds()

        return run

    def _recomputes(self, place: Place) -> bool:
        """What the pack chooses by itself."""
        given = (self._latents(place), "auto", self.precision, self.subject.prompt())
        try:
            return self.estimate.plan_training("tuning", self.inflated[OURS], *given, learns=True).checkpointing
        except ValueError:  # too large for the device; the run will say so, too
            return True

    def _latents(self, place: Place) -> torch.Tensor:
        return models.latents(place.frames, place.width, place.height)

    def _tune(self, what: str, way: Way, place: Place, steps: int, marks: Marks) -> None:
        settings = self.tune_settings(steps, precision=way.dtype)
        self.tuning.tune_model(
            self.inflated[way.method], self._latents(place), self.subject.prompt(), settings,
            "on" if way.checkpointing else "off", lambda done: [marks() for _ in done],
        )  # fmt: skip

    def _invert(self, what: str, way: Way, place: Place, steps: int, marks: Marks) -> None:
        model = self.inflated[way.method]
        self.sampling.invert(model, self._latents(place), self.subject.prompt(), steps, 0, marks)

    def _edit(self, what: str, way: Way, place: Place, steps: int, marks: Marks) -> None:
        model, prompt = self.inflated[way.method], self.subject.prompt()
        guider = self.sampling.plain_guider(model, prompt, self.subject.prompt(), GUIDANCE)
        sigmas = self.ddim.ddim_sigmas(steps, self.unet.sigma_schedule(model))

        def preview(denoised):  # called in every step
            marks()
            return denoised

        sampler = self.samplers.sampler_object("ddim")
        self.sampling.run(model, self._latents(place), guider, sampler, sigmas, preview)

    def _literal_unet(self, dtype: torch.dtype) -> LiteralUNet:
        weights = self.subject.model.model.diffusion_model.state_dict()
        return LiteralUNet(self.subject.unet_config, weights, dtype, self.subject.device)

    def _literal_tune(self, what: str, way: Way, place: Place, steps: int, marks: Marks) -> None:
        unet = self._literal_unet(torch.float32)
        unet.checkpointing = way.checkpointing
        pixels = models.clip(place.frames, place.width, place.height)
        context = self.subject.prompt()[0][0]
        latents = self._latents(place) if way.method == ENCODED_ONCE else None
        training = LiteralTuning(unet, self.subject.autoencoder, pixels, context, LONG[way.dtype], latents)
        for _ in range(steps):
            training.step()
            marks()

    def _literal_ddim(self, what: str, way: Way, place: Place, steps: int, marks: Marks) -> None:
        dtype, device = LONG[way.dtype], self.subject.device
        unet, latents = self._literal_unet(dtype), self._latents(place).to(device, dtype)
        context = self.subject.prompt()[0][0].to(device, dtype)
        if what == "invert":
            ddim(unet, latents, context, None, steps, marks)
        else:
            ddim(unet, latents, context.expand(2, -1, -1), GUIDANCE, steps, marks)

    def leave(self) -> None:
        """Puts the host's models back into main memory and frees what torch keeps on the GPU."""
        if self.subject.on_gpu:
            self.management.unload_all_models()
            self.management.soft_empty_cache(force=True)
