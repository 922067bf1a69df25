"""The steps that are timed: of tuning, inversion and edit, each by the pack and by the literal baseline, on a model in
a real ComfyUI in this process."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import torch

from benchmarks import stable_diffusion
from benchmarks.machine import uses_gpu
from devtools import in_process
from devtools.in_process import pack

from .literal import LiteralTuning, LiteralUNet, ddim
from .timing import LONG, SHORT, Contender, Marks

TOKENS = 77  # of a prompt
POOLED = 1280  # channels of SDXL's pooled prompt
MODELS = ("miniature", "sd15", "sdxl")
WHAT = ("tune", "invert", "edit")
OURS, RIVAL = "EI2", "Tune-A-Video"  # presets of the pack
LITERAL = "Tune-A-Video, literal"  # as shipped
ENCODED_ONCE = f"{LITERAL}, encoded once"
MEANT, MEANT_ONCE = f"{LITERAL}, as meant", f"{LITERAL}, as meant, encoded once"
LITERALS = (ENCODED_ONCE, MEANT, MEANT_ONCE, LITERAL)
GUIDANCE = 7.5


@dataclass(frozen=True)
class Subject:
    """A MODEL of the host and its autoencoder. `on_gpu`: where it computes."""

    name: str
    model: object
    autoencoder: torch.nn.Module
    on_gpu: bool

    @property
    def unet_config(self) -> dict:
        """The arguments with which the host made the UNet."""
        return dict(self.model.model.model_config.unet_config)

    @property
    def device(self) -> torch.device:
        return self.model.load_device

    def prompt(self) -> list:
        """The conditioning of a random prompt: no encoder is timed."""
        generator = torch.Generator().manual_seed(1)
        tokens = torch.randn(1, TOKENS, self.unet_config["context_dim"], generator=generator)
        return [[tokens, {"pooled_output": torch.randn(1, POOLED, generator=generator)}]]


def load(name: str, device: str) -> Subject:
    """`name`: one of `MODELS`; all but the miniature have random weights and go through the host's checkpoint loader.
    `device`: auto, cpu or cuda. Imports ComfyUI and the pack if needed."""
    if in_process.PACK not in sys.modules:
        in_process.import_host(device, torch_attention=True)
        in_process.import_pack()
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        if name == "miniature":
            model, _, vae = pack("host.miniature").load_miniature()
        else:
            import comfy.sd

            path = Path(folder) / f"random-{name}.safetensors"
            stable_diffusion.write(path, name)
            model, _, vae, _ = comfy.sd.load_checkpoint_guess_config(str(path), output_vae=True, output_clip=False)
    return Subject(name, model, vae.first_stage_model, uses_gpu(device))


@dataclass(frozen=True)
class Way:
    """How a step is done. `method`: a preset of the pack, or one of `LITERALS`; `dtype`: of the arithmetic;
    `checkpointing`: whether the backward pass recomputes activations, None if there is none; `optimizer`: of tuning."""

    method: str
    dtype: str
    checkpointing: bool | None = None
    optimizer: str = "AdamW"


@dataclass(frozen=True)
class Place:
    """What a step works on: the number of frames and their size in pixels."""

    frames: int
    width: int
    height: int

    def clip(self) -> torch.Tensor:
        """Pictures `f 3 h w` of noise, -1..1: the content does not affect the time."""
        generator = torch.Generator().manual_seed(2)
        return torch.rand(self.frames, 3, self.height, self.width, generator=generator) * 2 - 1

    def latents(self) -> torch.Tensor:
        """Random latents `f 4 h/8 w/8`."""
        generator = torch.Generator().manual_seed(3)
        return torch.randn(self.frames, 4, self.height // 8, self.width // 8, generator=generator)


class Steps:
    """Makes contenders of the pack's own functions and of the baseline, on one model."""

    def __init__(self, subject: Subject):
        self.subject, self.sampling = subject, pack("host.sampling")
        self.precision = pack("host.automatic").training_precision(subject.model, "auto")
        inflate, presets = pack("host.inflation").inflate, pack("ei2.settings").PRESETS
        with torch.inference_mode():
            self.inflated = {name: inflate(subject.model, presets[name]) for name in (OURS, RIVAL)}

    def ways(self, what: str, place: Place, full: bool) -> list[Way]:
        """The ways to do `what`; the literal one is the last. `full`: also other precisions, recomputation and the
        rival's preset, in addition to the pack's own choice."""
        on_gpu = self.subject.on_gpu
        if what != "tune":
            own = SHORT.get(pack("host.unet").compute_dtype(self.subject.model), "fp16")
            ours = [Way(OURS, own)] + ([Way(RIVAL, own)] if full else [])
            # half precision as in the script, here without autocast's casts, in its favour
            return [*ours, Way(LITERAL, "fp16" if on_gpu else own)]
        auto, half = self._recomputes(place), "fp16" if on_gpu else "bf16"
        precisions = [self.precision]
        if full:
            precisions = list(dict.fromkeys((self.precision, half) if on_gpu else (self.precision, "fp32", half)))
        ours = precisions[:1] if on_gpu else precisions
        recomputing = (auto,) if auto or not (full or on_gpu) else (False, True)
        ways = [Way(OURS, precision, again) for precision in ours for again in recomputing]
        if full:
            ways += [Way(RIVAL, precision, auto) for precision in precisions]
        return ways + [Way(name, half, True) for name in (LITERALS if full else (LITERAL,))]

    def contender(self, what: str, way: Way, place: Place) -> Contender:
        """A contender for `race`."""
        run = self.runner(what, way, place)
        if self.subject.on_gpu:
            return Contender(way.method, run, leave=self.leave, alone=True)
        # the baseline makes its weights while it runs, the host's exist before
        held = (lambda: 0) if way.method in LITERALS else self.subject.model.model_size
        return Contender(way.method, run, held)

    def runner(self, what: str, way: Way, place: Place) -> Callable[[int], list[float]]:
        """A function that does one step more than asked and returns the seconds of the others."""
        literal = way.method in LITERALS
        if literal:
            work = {"tune": self._literal_tune, "invert": self._literal_invert, "edit": self._literal_edit}[what]
        else:
            work = {"tune": self._tune, "invert": self._invert, "edit": self._edit}[what]

        def run(steps: int) -> list[float]:
            first = 2 if what == "invert" and not literal else 1  # its mark is also called before the first step
            marks = Marks(self.subject.on_gpu, first, first + steps)
            # nodes run in inference mode, training scripts do not; hides the host's progress bars
            with torch.inference_mode(not literal), redirect_stderr(StringIO()):
                work(way, place, steps + 1, marks)
            return marks.seconds()

        return run

    def _recomputes(self, place: Place) -> bool:
        """Whether the pack itself chooses to recompute activations."""
        plan = pack("host.memory").plan_training
        inputs = (self.inflated[OURS], place.latents(), "auto", self.precision, self.subject.prompt())
        try:
            return plan("tuning", *inputs, pack("ei2.optimizers").ADAMW).checkpointing
        except ValueError:  # too large for the device; the run will report it
            return True

    def _tune(self, way: Way, place: Place, steps: int, marks: Marks) -> None:
        settings = pack("ei2.tuning").TuneSettings(steps, precision=way.dtype, optimizer=way.optimizer)
        inputs = (self.inflated[way.method], place.latents(), self.subject.prompt(), settings)
        tune, mark_each = pack("host.tuning").tune_model, lambda steps: [marks() for _ in steps]
        tune(*inputs, "on" if way.checkpointing else "off", mark_each)

    def _invert(self, way: Way, place: Place, steps: int, marks: Marks) -> None:
        self.sampling.invert(self.inflated[way.method], place.latents(), self.subject.prompt(), steps, 0, marks)

    def _edit(self, way: Way, place: Place, steps: int, marks: Marks) -> None:
        import comfy.samplers

        model, prompt = self.inflated[way.method], self.subject.prompt()
        guider = self.sampling.plain_guider(model, prompt, self.subject.prompt(), GUIDANCE)
        sigmas = pack("ei2.ddim").ddim_sigmas(steps, pack("host.unet").sigma_schedule(model))

        def preview(denoised):  # called in every step
            marks()
            return denoised

        self.sampling.run(model, place.latents(), guider, comfy.samplers.sampler_object("ddim"), sigmas, preview)

    def _literal_unet(self, dtype: torch.dtype) -> LiteralUNet:
        weights = self.subject.model.model.diffusion_model.state_dict()
        return LiteralUNet(self.subject.unet_config, weights, dtype, self.subject.device)

    def _literal_tune(self, way: Way, place: Place, steps: int, marks: Marks) -> None:
        unet, context = self._literal_unet(torch.float32), self.subject.prompt()[0][0]
        unet.checkpointing, unet.shipped = way.checkpointing, way.method in (LITERAL, ENCODED_ONCE)
        once = way.method in (ENCODED_ONCE, MEANT_ONCE)
        training = LiteralTuning(unet, self.subject.autoencoder, place.clip(), context, LONG[way.dtype], once)
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
