"""Snapshots of a tuning run on disk: the state to resume from, and the run's identity,
so that no other run resumes from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from . import PIXELS_PER_LATENT, tensor_file
from .checked import Damaged, finite, made, numbers, same_shapes, tensor, value
from .digest import digest
from .model_identity import ModelIdentity, check_base
from .optimizers import first_state
from .settings import InflationSettings
from .tuning import TrainingState, TuneSettings

KIND = "ei2_snapshot"
SCALER = ("scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker")  # of torch's GradScaler
CLOSE = 0.02  # of the standard deviation: a GPU does not always encode the same frames or words to the same bits


@dataclass(frozen=True)
class Run:
    """The identity of a tuning run; the number of steps is not part of it.

    `clip`: `f c h w`; `prompt`: text embeddings, one `b l c` per entry of the conditioning; `earlier`: digest of the
    model's earlier training, empty if none; `attached`: digest of what else steers the model, such as ControlNets and
    other nodes' patches; None in files of earlier versions, which did not store it.
    """

    clip: torch.Tensor
    prompt: list[torch.Tensor]
    training: TuneSettings
    inflation: InflationSettings
    base: ModelIdentity
    earlier: str = ""
    attached: str | None = None

    @property
    def name(self) -> str:
        """A readable name, different for every run."""
        frames, _, height, width = self.clip.shape
        parts = [self.clip, self.prompt, self._settings(), self.base.family, self.base.sample, self.base.patches]
        short = digest([*parts, self.earlier, self.attached])[:10]
        scale = PIXELS_PER_LATENT
        return f"{frames}f_{scale * width}x{scale * height}_seed{self.training.seed}_{short}"

    def check(self, snapshot: Run, name: str) -> None:
        """Raises `ValueError` with both values unless the snapshot `name` belongs to this run."""
        theirs, ours = snapshot._settings(), self._settings()
        for key in ours:
            if theirs.get(key) != ours[key]:
                raise ValueError(
                    f"The snapshot {name} was made with {key} {theirs.get(key)}, but this tuning has {ours[key]}: set "
                    "it back, or set resume_from to none to start again."
                )
        size = lambda clip: [PIXELS_PER_LATENT * clip.shape[axis] for axis in (3, 2)]
        shape = lambda clip: f"{clip.shape[0]} frames of {' x '.join(map(str, size(clip)))}"
        remedy = "choose it again, or set resume_from to none to start again."
        if not _close([snapshot.clip], [self.clip]):
            raise ValueError(
                f"The snapshot {name} was made on another clip ({shape(snapshot.clip)}) than this one "
                f"({shape(self.clip)}): {remedy}"
            )
        if not _close(snapshot.prompt, self.prompt):
            raise ValueError(f"The snapshot {name} was made with a different source prompt: {remedy}")
        if check_base(snapshot.base, self.base, f"snapshot {name}"):
            raise ValueError(
                f"The snapshot {name} was made on another checkpoint, or with other LoRAs or patches: load the same "
                "ones, or set resume_from to none to start again."
            )
        if snapshot.earlier != self.earlier:
            raise ValueError(f"The snapshot {name} was made on a model with different earlier training: {remedy}")
        if snapshot.attached not in (None, self.attached):
            raise ValueError(
                f"The snapshot {name} was made with other options on the source prompt (such as a ControlNet or an "
                "area), or with other nodes on the model: connect them as they were, or set resume_from to none to "
                "start again."
            )

    def _settings(self) -> dict:
        training = {key: value for key, value in asdict(self.training).items() if key != "steps"}
        return {**training, **self.inflation.to_dict()}


def save_snapshot(path: Path, run: Run, state: TrainingState) -> None:
    """Writes the file atomically; replaces an older one of the same name."""
    tensors = {"clip": run.clip, "random": state.random, "base.sample": run.base.sample}
    tensors |= {f"prompt.{i}": text for i, text in enumerate(run.prompt)}
    tensors |= {f"weight.{name}": weight for name, weight in state.weights.items()}
    for i, moments in enumerate(state.moments):
        tensors |= {f"moment.{i}.{name}": value for name, value in moments.items()}
    record = {
        "training": asdict(run.training),
        "inflation": run.inflation.to_dict(),
        "base": {key: value for key, value in vars(run.base).items() if key != "sample"},
        "earlier": run.earlier,
        "attached": run.attached,
        "losses": state.losses,
        "scaler": state.scaler,
        "prompts": len(run.prompt),
        "parameters": len(state.moments),
        "tensors": len(tensors),
    }
    tensor_file.write(path, KIND, tensors, record)


def load_snapshot(path: Path) -> tuple[Run, TrainingState]:
    """Reads a file of `save_snapshot`. Raises `BadFile` for anything else, and for NaN or infinite values. `check_fits`
    checks whether it fits a model."""
    return _read(path)


def check_snapshot(path: Path) -> None:
    """Raises `BadFile` like `load_snapshot`, but does not read the tensors' values, which is slow for large files."""
    _read(path, look=True)


def check_fits(
    state: TrainingState, weights: dict[str, torch.Tensor], parameters: list[torch.Tensor], optimizer: str
) -> None:
    """Raises `BadFile` unless the state has everything needed to resume: tensors with the names and shapes of the
    trained `weights`, and the moments that the `optimizer` of that name keeps of each of the `parameters`."""
    with tensor_file.making_sense(Path(state.file)):
        same_shapes(state.weights, weights, "its weights")
        if len(state.moments) != len(parameters):
            raise Damaged(f"it holds moments of {len(state.moments)} weights instead of {len(parameters)}")
        for moments, parameter in zip(state.moments, parameters):
            same_shapes(moments, first_state(optimizer, parameter.to("meta")), "its moments")


def _read(path: Path, look: bool = False) -> tuple[Run, TrainingState]:
    tensors, record, _ = tensor_file.read(path, KIND, look)
    with tensor_file.making_sense(path, record):
        if "tensors" in record and len(tensors) != value(record, "tensors", int):  # the first version did not store it
            raise Damaged(f"it holds {len(tensors)} tensors instead of {record['tensors']}")
        prompts, parameters = value(record, "prompts", int), value(record, "parameters", int)
        if prompts > len(tensors) or parameters > len(tensors):
            raise Damaged("it lacks prompts or moments")
        run = Run(
            clip=tensor(tensors, "clip", dims=4),
            prompt=[tensor(tensors, f"prompt.{i}", dims=3) for i in range(prompts)],
            training=made(TuneSettings, value(record, "training", dict)),
            inflation=made(InflationSettings, value(record, "inflation", dict)),
            base=made(ModelIdentity, value(record, "base", dict), sample=tensor(tensors, "base.sample", dims=1)),
            earlier=value(record, "earlier", str),
            attached=value(record, "attached", str) if record.get("attached") is not None else None,
        )
        weights = tensor_file.part(tensors, "weight.")
        moments = [{} for _ in range(parameters)]
        for name, moment in tensor_file.part(tensors, "moment.").items():
            i, _, rest = name.partition(".")
            if not i.isdecimal() or int(i) >= parameters:
                raise Damaged(f"it holds {f'moment.{name}'[:40]!r}, which is unknown")
            moments[int(i)][rest] = moment
        known = 3 + prompts + len(weights) + sum(map(len, moments))
        if known != len(tensors):
            raise Damaged(f"it holds {len(tensors) - known} tensors that no snapshot has")
        for name in tensors:
            if name not in ("base.sample", "random"):
                finite(name, tensor(tensors, name))
        if not value(record, "losses", list):
            raise Damaged("it contains no step")
        scaler = value(record, "scaler", dict)
        scaler = {name: value(scaler, name, int if type(one) is int else float) for name, one in scaler.items()}
        for name in SCALER if run.training.precision == "fp16" else ():
            value(scaler, name, float)
        return run, TrainingState(numbers(record, "losses"), moments, _random(tensors), scaler, weights, path.name)


def _random(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """The state of a generator, which torch takes."""
    state = tensors["random"]
    if state.is_meta:
        return state
    try:
        torch.Generator("cpu").set_state(state)
    except (RuntimeError, TypeError) as error:
        raise Damaged("its random number state is invalid") from error
    return state


def _close(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    """Whether two lists of tensors are equal up to rounding."""
    if [tensor.shape for tensor in a] != [tensor.shape for tensor in b]:
        return False
    return all((x.float() - y.float()).abs().max() <= CLOSE * x.float().std() for x, y in zip(a, b))
