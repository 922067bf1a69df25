"""Tunes on disk: one safetensors file each, with everything that tells where it fits."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from . import tensor_file
from .model_identity import ModelIdentity
from .settings import PRESETS, InflationSettings
from .tune_result import TuneResult
from .tuning import TuneSettings

KIND = "ei2_tune"
PIXELS = 8  # per latent pixel
COVERS = "ssmd_cover_images"  # where the host's model browser looks for pictures: a JSON list of base64


@dataclass(frozen=True)
class SavedTune:
    """A tune with what is known of its file."""

    tune: TuneResult
    version: str
    prompt: str = ""

    def describe(self) -> str:
        """A few lines for the user."""
        tune = self.tune
        preset = next((name for name, settings in PRESETS.items() if settings == tune.settings), None)
        options = ", ".join(f"{name} {value}" for name, value in tune.settings.to_dict().items())
        height, width = (PIXELS * side for side in tune.size)
        lines = [f"inflation: {preset or options}", f"clip: {tune.frames} frames, {width} x {height}"]
        if tune.training:
            how = tune.training
            lines.append(f"training: {len(tune.losses)} steps at {how.learning_rate:g}, seed {how.seed}")
        if tune.losses:
            last = tune.losses[-max(1, len(tune.losses) // 20) :]
            lines.append(f"loss at the end: {sum(last) / len(last):.4f}")
        if tune.base:
            lines.append(f"model: {tune.base.name}{' with LoRA or patches' if tune.base.patches else ''}")
        return "\n".join([*lines, f"prompt: {self.prompt or '(not noted)'}", f"saved by version {self.version}"])


def save_tune(path: Path, tune: TuneResult, prompt: str = "") -> None:
    """Writes the file, whole or not at all."""
    base = tune.base
    tensors = {f"temporal.{name}": weight for name, weight in tune.temporal.items()}
    tensors |= {f"query.{name}": weight for name, weight in tune.query.items()}
    record = {
        "settings": tune.settings.to_dict(),
        "frames": tune.frames,
        "size": tune.size,
        "steps": len(tune.losses),
        "losses": tune.losses,
        "prompt": prompt,
        "training": tune.training and asdict(tune.training),
        "base": base and {key: value for key, value in vars(base).items() if key != "sample"},
    }
    if base:
        tensors["base.sample"] = base.sample
    picture = base64.b64encode(tune.picture).decode()
    tensor_file.write(path, KIND, tensors, record, {COVERS: json.dumps([picture])} if picture else None)


def load_tune(path: Path) -> SavedTune:
    """Reads what `save_tune` wrote. Raises `BadFile` for anything else."""
    tensors, record, metadata = tensor_file.read(path, KIND)
    covers = json.loads(metadata.get(COVERS, "[]"))
    base, training = record["base"], record["training"]
    tune = TuneResult(
        settings=InflationSettings(**record["settings"]),
        temporal=tensor_file.part(tensors, "temporal."),
        query=tensor_file.part(tensors, "query."),
        losses=record["losses"],
        frames=record["frames"],
        size=tuple(record["size"]),
        training=training and TuneSettings(**training),
        base=base and ModelIdentity(sample=tensors["base.sample"], **base),
        picture=base64.b64decode(covers[0]) if covers else b"",
    )
    return SavedTune(tune, record["version"], record["prompt"])
