"""Snapshots of a tuning on disk: everything to go on from, and what the run is of, so that no other one does."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from . import tensor_file
from .digest import digest
from .model_identity import ModelIdentity, check_base
from .settings import InflationSettings
from .tuning import TrainingState, TuneSettings

KIND = "ei2_snapshot"
CLOSE = 0.02  # of the spread: a GPU does not encode the same frames or words to the same bits twice


@dataclass(frozen=True)
class Run:
    """What a tuning is of; how long it goes is not part of it.

    `clip`: `f c h w`; `prompt`: text embeddings, one `b l c` per entry of the conditioning; `earlier`: digest of what
    the model had learned before, empty without.
    """

    clip: torch.Tensor
    prompt: list[torch.Tensor]
    training: TuneSettings
    inflation: InflationSettings
    base: ModelIdentity
    earlier: str = ""

    @property
    def name(self) -> str:
        """Readable, and another for every other run."""
        frames, _, height, width = self.clip.shape
        parts = [self.clip, self.prompt, self._settings(), self.base.family, self.base.sample, self.base.patches]
        short = digest([*parts, self.earlier])[:10]
        return f"{frames}f_{8 * width}x{8 * height}_seed{self.training.seed}_{short}"

    def check(self, snapshot: Run, name: str) -> None:
        """Raises `ValueError`, naming both sides, unless the snapshot of that name is of this run."""
        found, wanted = snapshot._settings(), self._settings()
        for key in wanted:
            if found.get(key) != wanted[key]:
                raise ValueError(
                    f"The snapshot {name} was made with {key} {found.get(key)}, but this tuning has {wanted[key]}: set "
                    "it back, or set resume_from to none to start anew."
                )
        shape = lambda clip: f"{clip.shape[0]} frames of {8 * clip.shape[3]} x {8 * clip.shape[2]}"
        remedy = "choose it again, or set resume_from to none to start anew."
        if not _close([snapshot.clip], [self.clip]):
            raise ValueError(
                f"The snapshot {name} was made on another clip ({shape(snapshot.clip)}) than this one "
                f"({shape(self.clip)}): {remedy}"
            )
        if not _close(snapshot.prompt, self.prompt):
            raise ValueError(f"The snapshot {name} was made with another source prompt than this one: {remedy}")
        warning = check_base(snapshot.base, self.base, f"snapshot {name}")
        if warning:
            raise ValueError(warning)
        if snapshot.earlier != self.earlier:
            raise ValueError(f"The snapshot {name} was made on a model that had learned other things before: {remedy}")

    def _settings(self) -> dict:
        training = {key: value for key, value in asdict(self.training).items() if key != "steps"}
        return {**training, **self.inflation.to_dict()}


def save_snapshot(path: Path, run: Run, state: TrainingState) -> None:
    """Writes the file, whole or not at all, in place of an older one of the same name."""
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
        "losses": state.losses,
        "scaler": state.scaler,
        "prompts": len(run.prompt),
        "parameters": len(state.moments),
    }
    tensor_file.write(path, KIND, tensors, record)


def load_snapshot(path: Path) -> tuple[Run, TrainingState]:
    """Reads what `save_snapshot` wrote. Raises `BadFile` for anything else."""
    tensors, record, _ = tensor_file.read(path, KIND)
    part = lambda prefix: tensor_file.part(tensors, prefix)
    run = Run(
        clip=tensors["clip"],
        prompt=[tensors[f"prompt.{i}"] for i in range(record["prompts"])],
        training=TuneSettings(**record["training"]),
        inflation=InflationSettings(**record["inflation"]),
        base=ModelIdentity(sample=tensors["base.sample"], **record["base"]),
        earlier=record["earlier"],
    )
    moments = [part(f"moment.{i}.") for i in range(record["parameters"])]
    return run, TrainingState(record["losses"], moments, tensors["random"], record["scaler"], part("weight."))


def _close(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    """Whether two lists of tensors are the same but for rounding."""
    if [tensor.shape for tensor in a] != [tensor.shape for tensor in b]:
        return False
    return all((x.float() - y.float()).abs().max() <= CLOSE * x.float().std() for x, y in zip(a, b))
