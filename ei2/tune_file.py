"""Tunes on disk: one safetensors file each, with everything that tells where it fits."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from . import VERSION, tensor_file
from .model_identity import ModelIdentity
from .settings import PRESETS, InflationSettings
from .tune_result import TuneResult
from .tuning import TuneSettings

KIND = "ei2_tune"
FORMAT = 1  # of the file; a newer one may hold what this version cannot read
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
        "format": FORMAT,
        "version": VERSION,
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
    tune_record(path)
    tensors, record, metadata = tensor_file.read(path, KIND)
    covers = json.loads(metadata.get(COVERS, "[]"))
    base, training = record["base"], record["training"]
    tune = TuneResult(
        settings=InflationSettings(**record["settings"]),
        temporal=_part(tensors, "temporal."),
        query=_part(tensors, "query."),
        losses=record["losses"],
        frames=record["frames"],
        size=tuple(record["size"]),
        training=training and TuneSettings(**training),
        base=base and ModelIdentity(sample=tensors["base.sample"], **base),
        picture=base64.b64decode(covers[0]) if covers else b"",
    )
    return SavedTune(tune, record["version"], record["prompt"])


def tune_record(path: Path) -> dict:
    """What the file says of itself, without reading the weights. Raises `BadFile`."""
    record = tensor_file.read_record(path, KIND)
    if record.get("format") != FORMAT:
        raise tensor_file.BadFile(
            f"{path.name} was saved by version {record.get('version')} of this pack, which this one "
            f"({VERSION}) cannot read: update the pack."
        )
    return record


def _part(tensors: dict, prefix: str) -> dict:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
