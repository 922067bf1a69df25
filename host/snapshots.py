"""Saves snapshots during tuning, and resumes from them."""

from __future__ import annotations

from pathlib import Path

import torch

from ..ei2.digest import digest
from ..ei2.snapshot_file import Run, load_snapshot, save_snapshot
from ..ei2.tuning import TrainingState, TuneSettings
from .folders import check_writable, resolve_snapshot, short_path, snapshot_path
from .identity import attachments, identify
from .inflation import require_inflation
from .ui import show_text, warn, warn_in_node

NONE = "none"  # the choice to start from the beginning


def describe_run(model, latents: torch.Tensor, positive: list, settings: TuneSettings) -> Run:
    """The identity of a tuning run of an inflated MODEL on `latents` `f c h w`."""
    inflation = require_inflation(model)
    earlier = digest([inflation.tune.temporal, inflation.tune.query]) if inflation.tune else ""
    prompt = [text.detach().cpu() for text, _ in positive]
    attached = attachments(model, [options for _, options in positive])
    return Run(latents.detach().cpu(), prompt, settings, inflation.settings, identify(model), earlier, attached)


def resume(name: str, run: Run) -> TrainingState | None:
    """The state in the snapshot of that name; None for `none`. Raises `ValueError` if it belongs to another run, has
    more steps than the run, or cannot be read."""
    if name == NONE:
        return None
    made_of, state = load_snapshot(resolve_snapshot(name))
    run.check(made_of, name)
    done, steps = len(state.losses), run.training.steps
    if done > steps:
        raise ValueError(
            f"The snapshot {name} has done {done} steps, but this tuning ends after {steps}: set steps to {done} or "
            "more, or resume_from to none to start again."
        )
    return state


def warn_of_folder(folder: Path) -> None:
    """Warns before tuning if no snapshots can be written to the folder. Tuning then runs without them."""
    try:
        check_writable(folder)
    except ValueError as error:
        warn_in_node(f"There will be no snapshots: {error}")


class Snapshots:
    """Keeps the latest state of a run in one file: the one of `resumed`, or a new one."""

    def __init__(self, run: Run, resumed: str):
        self.run = run
        self.path: Path = snapshot_path(run.name) if resumed == NONE else resolve_snapshot(resumed)
        self.report = ""

    def keep(self, state: TrainingState) -> None:
        """Writes the state. If that fails, reports it and lets tuning continue."""
        done = len(state.losses)
        try:
            save_snapshot(self.path, self.run, state)
            self.report = f"snapshot at step {done}: {short_path(self.path)}"
        except OSError as error:
            self.report = f"no snapshot at step {done}, tuning continues: {error}"
            warn(self.report)
        show_text(self.report)
