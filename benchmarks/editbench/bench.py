"""EditBench's models: the pack's own functions in a real ComfyUI in this process."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.machine import uses_gpu
from devtools import in_process
from miniature.judge import Judge

from .blend_words import blend_words
from .clips import Clip, Edit
from .job import Job
from .methods import ControlSettings
from .work import Work


class Bench:
    """The models, loaded once per process, and what is needed of the pack."""

    def __init__(self, device: str, threads: int):
        torch.set_num_threads(threads)
        self.on_gpu = uses_gpu(device)
        in_process.import_host(device)
        in_process.import_pack()
        pack = in_process.pack
        self.inflation, self.tuning = pack("nodes.host.inflation"), pack("nodes.host.tuning")
        self.sampling, self.guidance = pack("nodes.host.sampling"), pack("nodes.host.guidance")
        self.null_text, self.shift = pack("nodes.host.null_text"), pack("nodes.host.shift")
        self.settings, self.tune_settings = pack("ei2.settings"), pack("ei2.tuning").TuneSettings
        self.null_text_settings, self.inversion = pack("ei2.null_text").NullTextSettings, pack("nodes.inversion")
        self.token_map, self.read_prompt = pack("ei2.token_alignment").token_map, pack("nodes.host.prompts").read_prompt
        self.attention_control = pack("nodes.attention_control").AttentionControl
        with torch.inference_mode():
            self.model, self.clip_model, self.vae = pack("nodes.host.miniature").load_miniature()
        self.judge = Judge.load()

    def run(self, job: Job, strips: Path) -> list[dict]:
        """The job's rows; the edited frames go to the folder `strips`."""
        with torch.inference_mode():
            work = Work(self, job)
            return [row for case in job.cases for row in work.rows(case, strips)]

    def tuned(self, latents: torch.Tensor, source: list, steps: int, learning_rate: float, precision: str, **further):
        """The model tuned as EI2 on a clip `f c h w` with its prompt `source`. `further`: settings of the tuning."""
        inflated = self.inflation.inflate(self.model, self.settings.PRESETS["EI2"])
        settings = self.tune_settings(steps, learning_rate, 0, precision, **further)
        tune = self.tuning.tune_model(inflated, latents, source, settings, "auto")
        return self.inflation.apply_tune(inflated, tune)

    def encode(self, text: str) -> list:
        return self.clip_model.encode_from_tokens_scheduled(self.clip_model.tokenize(text))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pictures `f 3 h w` in 0..1."""
        return self.vae.decode(latents).movedim(-1, 1).float().cpu().clamp(0, 1)

    def control(self, clip: Clip, edit: Edit, wanted: ControlSettings):
        """What the node EI2 Attention Control makes of an edit's prompts, all else at its defaults."""
        source, target = clip.source_prompt, edit.target_prompt
        options = {one.id: getattr(one, "default", None) for one in self.attention_control.define_schema().inputs}
        _, mode = self.token_map(*(self.read_prompt(self.clip_model, text) for text in (source, target)), "auto")
        options |= {
            "clip": self.clip_model,
            "source_prompt": source,
            "target_prompt": target,
            "cross_replace": wanted.cross_replace if mode == "replace" else wanted.cross_refine,
            "self_replace": wanted.self_replace,
            "unconditional": wanted.unconditional,
        }
        words = blend_words(clip, edit)
        if wanted.blend and words:
            options["blend_source"], options["blend_target"] = map(", ".join, words)
            options |= {"blend_threshold": wanted.blend.threshold, "blend_start": wanted.blend.start}
        return self.attention_control.execute(**options).args[0]
