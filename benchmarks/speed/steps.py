"""The steps that are timed: of tuning, inversion and edit, each as the pack does it and as the literal baseline."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO

import torch

from devtools.in_process import pack

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
    """How a step is done. `method`: a preset of the pack, or one of `LITERALS`; `dtype`: of the arithmetic;
    `checkpointing`: whether the backward pass recomputes activations, None where there is none."""

    method: str
    dtype: str
    checkpointing: bool | None = None


@dataclass(frozen=True)
class Place:
    """What a step works on: the number of frames and their size in pixels."""

    frames: int
    width: int
    height: int

    def latents(self) -> torch.Tensor:
        return models.latents(self.frames, self.width, self.height)


class Steps:
    """Makes contenders of the pack's own functions and of the baseline, on one model."""

    def __init__(self, subject: Subject):
        self.subject, self.sampling = subject, pack("nodes.host.sampling")
        self.precision = pack("nodes.host.precision").training_precision(subject.model, "auto")
        inflate, presets = pack("nodes.host.inflation").inflate, pack("ei2.settings").PRESETS
        with torch.inference_mode():
            self.inflated = {name: inflate(subject.model, presets[name]) for name in (OURS, RIVAL)}

    def ways(self, what: str, place: Place, full: bool) -> list[Way]:
        """The ways to do `what`; the literal one is the last. `full`: besides what the pack chooses by itself also other
        precisions, recomputation and the rival's preset."""
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
        # the baseline makes its weights while it runs, the host's exist before
        held = (lambda: 0) if way.method in LITERALS else self.subject.model.model_size
        return Contender(way.method, run, held)

    def runner(self, what: str, way: Way, place: Place) -> Callable[[int], list[float]]:
        """A function that does one step more than asked and returns the seconds of the others."""
        literal = way.method in LITERALS
        work = getattr(self, f"_{'literal_' if literal else ''}{what}")

        def run(steps: int) -> list[float]:
            first = 2 if what == "invert" and not literal else 1  # its mark is also called before the first step
            marks = Marks(self.subject.on_gpu, first, first + steps)
            # nodes run in inference mode, training scripts do not; hides the host's progress bars
            with torch.inference_mode(not literal), redirect_stderr(StringIO()):
                work(way, place, steps + 1, marks)
            return marks.seconds()

        return run

    def _recomputes(self, place: Place) -> bool:
        """Whether the pack chooses by itself to recompute activations."""
        plan = pack("nodes.host.memory_estimate").plan_training
        inputs = (self.inflated[OURS], place.latents(), "auto", self.precision, self.subject.prompt())
        try:
            return plan("tuning", *inputs, learns=True).checkpointing
        except ValueError:  # too large for the device; the run will report it
            return True

    def _tune(self, way: Way, place: Place, steps: int, marks: Marks) -> None:
        settings, checkpointing = pack("ei2.tuning").TuneSettings(steps, precision=way.dtype), way.checkpointing
        inputs = (self.inflated[way.method], place.latents(), self.subject.prompt(), settings)
        pack("nodes.host.tuning").tune_model(*inputs, "on" if checkpointing else "off", marks)

    def _invert(self, way: Way, place: Place, steps: int, marks: Marks) -> None:
        self.sampling.invert(self.inflated[way.method], place.latents(), self.subject.prompt(), steps, 0, marks)

    def _edit(self, way: Way, place: Place, steps: int, marks: Marks) -> None:
        import comfy.samplers

        model, prompt = self.inflated[way.method], self.subject.prompt()
        guider = self.sampling.plain_guider(model, prompt, self.subject.prompt(), GUIDANCE)
        sigmas = pack("ei2.ddim").ddim_sigmas(steps, pack("nodes.host.unet").sigma_schedule(model))

        def preview(denoised):  # called in every step
            marks()
            return denoised

        self.sampling.run(model, place.latents(), guider, comfy.samplers.sampler_object("ddim"), sigmas, preview)

    def _literal_unet(self, dtype: torch.dtype) -> LiteralUNet:
        weights = self.subject.model.model.diffusion_model.state_dict()
        return LiteralUNet(self.subject.unet_config, weights, dtype, self.subject.device)

    def _literal_tune(self, way: Way, place: Place, steps: int, marks: Marks) -> None:
        unet, pixels = self._literal_unet(torch.float32), models.clip(place.frames, place.width, place.height)
        unet.checkpointing, context = way.checkpointing, self.subject.prompt()[0][0]
        latents = place.latents() if way.method == ENCODED_ONCE else None
        training = LiteralTuning(unet, self.subject.autoencoder, pixels, context, LONG[way.dtype], latents)
        for _ in range(steps):
            training.step()
            marks()

    def _literal_invert(self, way: Way, place: Place, steps: int, marks: Marks, guidance: float | None = None) -> None:
        dtype, device = LONG[way.dtype], self.subject.device
        context = self.subject.prompt()[0][0].to(device, dtype).expand(1 if guidance is None else 2, -1, -1)
        ddim(self._literal_unet(dtype), place.latents().to(device, dtype), context, guidance, steps, marks)

    def _literal_edit(self, way: Way, place: Place, steps: int, marks: Marks) -> None:
        self._literal_invert(way, place, steps, marks, GUIDANCE)

    def leave(self) -> None:
        """Moves the host's models back into main memory and frees what torch keeps on the GPU."""
        if self.subject.on_gpu:
            import comfy.model_management

            comfy.model_management.unload_all_models()
            comfy.model_management.soft_empty_cache(force=True)
