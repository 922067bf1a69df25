"""Tunes: what one-shot tuning learned, independent of any loaded model, and the safetensors file that holds it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from . import PIXELS_PER_LATENT, tensor_file
from .checked import Damaged, finite, made, numbers, tensor, value
from .model_identity import ModelIdentity
from .settings import PRESETS, InflationSettings
from .tuning import TuneSettings

KIND = "ei2_tune"
COVERS = "ssmd_cover_images"  # where the host's model browser finds pictures: a JSON list of base64 strings
MOST_PICTURE = 2_000_000  # characters of base64; ours have about a tenth

TEMPORAL = re.compile(r"(?P<block>[A-Za-z0-9_]+)\.(?P<layer>to_[qkv]\.weight|to_out\.(weight|bias))")
QUERY = re.compile(r"[A-Za-z0-9_.]+\.attn[12]\.to_q\.weight")


@dataclass(frozen=True)
class TuneResult:
    """Weights that turn an inflated model with the same settings into the tuned one.

    `temporal`: effective weights of the temporal modules, by block and layer; `query`: the additions to the q
    projections, by the UNet's weight name, including those of earlier tunings of the same model; all on the CPU. For
    information: the `losses` of every step, `frames` and `size` (height, width in latent pixels) of the clip, the
    training settings, the `base` model, a small PNG `picture` of the clip, and the name of the `file` it came from.
    """

    settings: InflationSettings
    temporal: dict[str, torch.Tensor]
    query: dict[str, torch.Tensor]
    losses: list[float] = field(default_factory=list)
    frames: int = 0
    size: tuple[int, int] = (0, 0)
    training: TuneSettings | None = None
    base: ModelIdentity | None = None
    picture: bytes = b""
    file: str = ""

    def scaled(self, strength: float, query_strength: float | None = None) -> TuneResult:
        """This tune at another strength: 1 is unchanged, 0 has no effect. The temporal modules' output is multiplied by
        `strength`, the additions to the q projections by `query_strength` (default: `strength`)."""
        query_strength = strength if query_strength is None else query_strength
        outputs = {name: weight * strength for name, weight in self.temporal.items() if ".to_out." in name}
        query = {name: weight * query_strength for name, weight in self.query.items()}
        return replace(self, temporal={**self.temporal, **outputs}, query=query)


@dataclass(frozen=True)
class SavedTune:
    """A tune and the information in its file."""

    tune: TuneResult
    version: str
    prompt: str = ""

    def describe(self) -> str:
        """A few lines for the user."""
        tune = self.tune
        preset = next((name for name, settings in PRESETS.items() if settings == tune.settings), None)
        options = ", ".join(f"{name} {value}" for name, value in tune.settings.to_dict().items())
        height, width = (PIXELS_PER_LATENT * side for side in tune.size)
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
    """Writes the file atomically; replaces an older one. Raises `NotWritten`."""
    tensor_file.write(path, KIND, *_content(tune, prompt))


def save_new_tune(paths: Iterable[Path], tune: TuneResult, prompt: str = "") -> Path:
    """The same, to the first of `paths` (all in one folder) that is still free then. Returns that path."""
    return tensor_file.write_new(paths, KIND, *_content(tune, prompt))


def load_tune(path: Path) -> SavedTune:
    """Reads a file of `save_tune`. Raises `BadFile` for anything else, and for NaN or infinite values."""
    return _read(path)


def check_tune(path: Path) -> None:
    """Raises `BadFile` like `load_tune`, but does not read the weights' values, which is slow for large files."""
    _read(path, look=True)


def _content(tune: TuneResult, prompt: str) -> tuple[dict, dict, dict | None]:
    base = tune.base
    tensors = {f"temporal.{name}": weight for name, weight in tune.temporal.items()}
    tensors |= {f"query.{name}": weight for name, weight in tune.query.items()}
    if base:
        tensors["base.sample"] = base.sample
    record = {
        "settings": tune.settings.to_dict(),
        "frames": tune.frames,
        "size": tune.size,
        "steps": len(tune.losses),
        "losses": tune.losses,
        "prompt": prompt,
        "training": tune.training and asdict(tune.training),
        "base": base and {key: value for key, value in vars(base).items() if key != "sample"},
        "tensors": len(tensors),
    }
    picture = base64.b64encode(tune.picture).decode()
    return tensors, record, {COVERS: json.dumps([picture])} if picture else None


def _read(path: Path, look: bool = False) -> SavedTune:
    tensors, record, metadata = tensor_file.read(path, KIND, look)
    with tensor_file.making_sense(path, record):
        settings = made(InflationSettings, value(record, "settings", dict))
        base = training = None
        if record["base"] is not None:
            base = made(ModelIdentity, value(record, "base", dict), sample=tensor(tensors, "base.sample", dims=1))
        if record["training"] is not None:
            training = made(TuneSettings, value(record, "training", dict))
        _check_weights(tensors, settings, _count(record, tensors))
        tune = TuneResult(
            settings=settings,
            temporal=tensor_file.part(tensors, "temporal."),
            query=tensor_file.part(tensors, "query."),
            losses=numbers(record, "losses"),
            frames=value(record, "frames", int),
            size=_size(record),
            training=training,
            base=base,
            picture=_picture(metadata),
            file=path.name,
        )
        return SavedTune(tune, value(record, "version", str), value(record, "prompt", str))


def _count(record: dict, tensors: dict) -> int:
    """The expected number of tensors, which the pack's first version did not store."""
    return value(record, "tensors", int) if "tensors" in record else len(tensors)


def _check_weights(tensors: dict[str, torch.Tensor], settings: InflationSettings, count: int) -> None:
    """Checks what needs no model: names, shapes, that every block has the same layers, and finite numbers."""
    if len(tensors) != count:
        raise Damaged(f"it holds {len(tensors)} tensors instead of {count}")
    blocks: dict[str, set[str]] = {}
    sizes: dict[str, int] = {}
    for name in tensors:
        kind, _, rest = name.partition(".")
        temporal = TEMPORAL.fullmatch(rest) if kind == "temporal" else None
        if not temporal and name != "base.sample" and not (kind == "query" and QUERY.fullmatch(rest)):
            raise Damaged(f"it holds {name[:80]!r}, which no tune has")
        weight = tensor(tensors, name, dims=1 if name == "base.sample" or rest.endswith(".bias") else 2)
        if temporal:
            blocks.setdefault(temporal["block"], set()).add(temporal["layer"])
            channels = sizes.setdefault(temporal["block"], len(weight))
            if any(side != channels for side in weight.shape):
                raise Damaged(f"{name!r} has the shape {list(weight.shape)} where others have {channels} channels")
        if name != "base.sample":  # a sample of the base model's weights
            finite(name, weight)
    layers = set().union(*blocks.values())
    for block, present in blocks.items():
        if present != layers:
            raise Damaged(f"it lacks {sorted(layers - present)[0]} of {block}")
    if bool(blocks) != (settings.temporal != "none"):
        raise Damaged(f"it holds {len(blocks)} temporal modules, but was made with temporal {settings.temporal}")


def _size(record: dict) -> tuple[int, int]:
    size = value(record, "size", list)
    if len(size) != 2 or not all(type(side) is int for side in size):
        raise Damaged("size is not a height and a width")
    return tuple(size)


def _picture(metadata: dict[str, str]) -> bytes:
    """The cover picture; empty if it is not one of ours. It is not decoded here."""
    covers = metadata.get(COVERS, "[]")
    if len(covers) > MOST_PICTURE:
        return b""
    with suppress(ValueError, TypeError, LookupError, RecursionError):
        return base64.b64decode(json.loads(covers)[0], validate=True)
    return b""
