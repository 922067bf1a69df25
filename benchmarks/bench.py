"""The miniature and the pack's functions in a real ComfyUI in this process, shared by all benchmarks of edits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch

from benchmarks.machine import uses_gpu
from devtools import in_process
from devtools.in_process import pack
from miniature.judge import Judge
from miniature.scene import View, render


class Bench:
    """The models, loaded once per process. `exact`: computes in fp32 everywhere."""

    def __init__(self, device: str, threads: int | None = None, exact: bool = False):
        torch.set_num_threads(threads or torch.get_num_threads())
        self.on_gpu = uses_gpu(device)
        in_process.import_host(device, exact=exact)
        in_process.import_pack()
        with torch.inference_mode():
            self.model, self.clip_model, self.vae = pack("host.miniature").load_miniature()
            self.empty = self.encode("")
        self.judge = Judge.load()

    def encode(self, text: str) -> list:
        """A prompt's conditioning."""
        return self.clip_model.encode_from_tokens_scheduled(self.clip_model.tokenize(text))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pictures `f 3 h w` in 0..1."""
        return self.vae.decode(latents).movedim(-1, 1).float().cpu().clamp(0, 1)

    def inflate(self, preset: str = "EI2", **options):
        """The model inflated with a preset of the pack; `options` replace some of its settings."""
        settings = pack("ei2.settings")
        chosen = settings.InflationSettings(**{**settings.PRESETS[preset].to_dict(), **options})
        return pack("host.inflation").inflate(self.model, chosen)

    def tune(self, model, clip: BenchClip, steps: int, loop: Callable | None = None, **settings):
        """What an inflated model learns from a clip. `loop`: iterates over the steps, as in `tune_model`; `settings`:
        of `ei2.tuning.TuneSettings`."""
        tuning, chosen = pack("host.tuning"), pack("ei2.tuning").TuneSettings(steps, **settings)
        return tuning.tune_model(model, clip.latents, clip.source, chosen, "auto", loop or tuning.run_through)

    def tuned(self, clip: BenchClip, steps: int, **settings):
        """The model inflated as EI2 and tuned on a clip, see `tune`."""
        model = self.inflate()
        return self.apply(model, self.tune(model, clip, steps, **settings))

    def apply(self, model, tune):
        """An inflated model with a tune applied."""
        return pack("host.inflation").apply_tune(model, tune)

    def invert(self, model, latents: torch.Tensor, prompt: list, steps: int):
        """The pack's `Inversion` of a clip, with its trajectory."""
        return pack("host.sampling").inverted_clip(model, latents, prompt, steps, 0, keep=True)

    def with_null_text(self, model, inversion, source: list, inner_steps: int, cfg: float):
        """The inversion with unconditional embeddings optimised for `cfg`."""
        host = pack("host.null_text")
        settings, precision = pack("ei2.null_text").NullTextSettings(inner_steps, cfg), host.null_text_precision(model)
        trajectory = list(inversion.trajectory)
        embeddings, _ = host.null_text(
            model, trajectory, inversion.sigmas, source, self.empty, settings, precision=precision
        )
        start = self.empty[0][0].detach().cpu().float()
        return replace(inversion, unconditional=embeddings, empty=start, null_cfg=cfg)

    def sample(self, model, inversion, prompt: list, cfg: float, negative: list | None = None, kept=None):
        """Pictures `f 3 h w` sampled from inverted noise, see `sample_latents`."""
        return self.decode(self.sample_latents(model, inversion, prompt, cfg, negative, kept))

    def sample_latents(
        self, model, inversion, prompt: list, cfg: float, negative: list | None = None, kept=None, guidance_end=1.0
    ):
        """Latents `f c h w` sampled from inverted noise. `negative`: an empty prompt by default;
        `kept`: keeps the clip outside a mask; `guidance_end`: as in `host.sampling.sample`."""
        sample, noise, sigmas = pack("host.sampling").sample, inversion.noise, inversion.sigmas
        return sample(model, noise, prompt, negative or self.empty, cfg, sigmas, kept, guidance_end)

    def attention_control(self, source: str, target: str, **options):
        """The node EI2 Attention Control for two prompts, with its defaults except for `options`."""
        node = pack("nodes.attention_control").AttentionControl
        prompts = {"clip": self.clip_model, "source_prompt": source, "target_prompt": target}
        return node.execute(**{**defaults_of(node), **prompts, **options}).args[0]


def defaults_of(node) -> dict:
    """The defaults of a node's inputs by name; None for those without one."""
    return {field.id: getattr(field, "default", None) for field in node.define_schema().inputs}


class BenchClip:
    """A rendered clip: its frames `f 3 h w`, latents `f c h w` and the conditioning of its prompt."""

    def __init__(self, bench: Bench, views: Iterable[View], prompt: str):
        self.frames = render(list(views))
        self.latents = bench.vae.encode(self.frames.movedim(1, -1))
        self.source = bench.encode(prompt)
