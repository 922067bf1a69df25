"""Snapshots on disk: all comes back, and only the same run may go on from one."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ei2.model_identity import ModelIdentity
from ei2.settings import PRESETS
from ei2.snapshot_file import Run, load_snapshot, save_snapshot
from ei2.tensor_file import BadFile
from ei2.tuning import TrainingState, TuneSettings


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


RUN = Run(
    clip=random(3, 4, 8, 6),
    prompt=[random(1, 77, 5), random(1, 77, 5, seed=1)],
    training=TuneSettings(9, 1e-3, 2**64 - 1, "fp16"),
    inflation=PRESETS["EI2"],
    base=ModelIdentity("f" * 64, "SD15", random(20), 2.0**-10, 6e-8),
)


def other(**changes) -> Run:
    return dataclasses.replace(RUN, **changes)


def test_all_of_it_comes_back(tmp_path):
    state = TrainingState(
        losses=[0.1, 1 / 3],
        moments=[{"step": torch.tensor(2.0), "exp_avg": random(3, 3).T}, {"step": torch.tensor(2.0)}],
        random=torch.Generator().manual_seed(5).get_state(),
        scaler={
            "scale": 65536.0,
            "growth_factor": 2.0,
            "backoff_factor": 0.5,
            "growth_interval": 2000,
            "_growth_tracker": 2,
        },
        weights={"temporal.a.left": random(3), "query.b": random(2, 2)},
    )
    path = tmp_path / "new" / f"{RUN.name}.safetensors"
    save_snapshot(path, RUN, dataclasses.replace(state, losses=[0.1]))
    save_snapshot(path, RUN, state)
    run, found = load_snapshot(path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert (found.losses, found.scaler, run.training, run.inflation) == (
        state.losses,
        state.scaler,
        RUN.training,
        RUN.inflation,
    )
    assert torch.equal(found.random, state.random) and len(found.moments) == 2
    for a, b in zip([*found.moments, found.weights], [*state.moments, state.weights]):
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    RUN.check(run, "x")
    assert run.name == RUN.name


def test_the_name_is_readable_and_of_the_run_but_not_its_length():
    assert RUN.name.startswith("3f_48x64_seed18446744073709551615_")
    assert other(training=dataclasses.replace(RUN.training, steps=20)).name == RUN.name
    others = [
        other(clip=RUN.clip + 1e-3),
        other(prompt=RUN.prompt[:1]),
        other(inflation=PRESETS["Video-P2P"]),
        other(training=dataclasses.replace(RUN.training, learning_rate=1e-4)),
        other(earlier="x"),
        other(base=dataclasses.replace(RUN.base, patches="p")),
    ]
    assert len({RUN.name, *(run.name for run in others)}) == 7


def test_rounding_is_no_other_run():
    noise = 1e-3 * random(3, 4, 8, 6, seed=9)
    RUN.check(other(clip=RUN.clip + noise, prompt=[RUN.prompt[0] * 1.001, RUN.prompt[1]]), "x")
    RUN.check(other(training=dataclasses.replace(RUN.training, steps=99)), "x")


@pytest.mark.parametrize(
    "snapshot, words",
    [
        (other(training=dataclasses.replace(RUN.training, learning_rate=3e-5)), "learning_rate 3e-05, .* has 0.001"),
        (other(training=dataclasses.replace(RUN.training, seed=7)), "seed 7, but this tuning has 18446744073709551615"),
        (
            other(training=dataclasses.replace(RUN.training, precision="bf16")),
            "precision bf16, but this tuning has fp16",
        ),
        (other(inflation=PRESETS["Tune-A-Video"]), "spatial sca, but this tuning has ffam"),
        (
            other(clip=random(3, 4, 8, 6, seed=3)),
            "another clip .3 frames of 48 x 64. than this one .3 frames of 48 x 64.",
        ),
        (other(clip=random(5, 4, 8, 8)), "another clip .5 frames of 64 x 64. than this one"),
        (other(prompt=[RUN.prompt[1], RUN.prompt[0]]), "a different source prompt"),
        (other(prompt=RUN.prompt[:1]), "a different source prompt"),
        (other(base=dataclasses.replace(RUN.base, family="0", name="SDXL")), "on SDXL, but this model is SD15"),
        (other(base=dataclasses.replace(RUN.base, sample=random(20, seed=2))), "another checkpoint, .*: load the same"),
        (other(base=dataclasses.replace(RUN.base, patches="p")), "with other LoRAs or patches: load the same"),
        (other(earlier="e"), "with different earlier training"),
    ],
)
def test_another_run_is_refused_naming_both(snapshot, words):
    with pytest.raises(ValueError, match=f"snapshot x was .*{words}"):
        RUN.check(snapshot, "x")


@pytest.mark.parametrize("name", ["x", "1", "-1", "²"])
def test_a_moment_of_no_weight(tmp_path, name):
    state = TrainingState([0.1], [{"step": torch.tensor(1.0)}], torch.Generator().get_state(), {})
    path = tmp_path / "a.safetensors"
    save_snapshot(path, RUN, state)
    with safe_open(path, "pt") as file:
        tensors, texts = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()
    tensors[f"moment.{name}.step"] = tensors.pop("moment.0.step")
    save_file(tensors, path, texts)
    with pytest.raises(BadFile, match=f"a.safetensors is damaged .*it holds 'moment.{name}.step', which is unknown"):
        load_snapshot(path)


def test_a_tune_is_no_snapshot(tmp_path):
    from ei2.tune_file import load_tune

    state = TrainingState([0.1], [], torch.zeros(2, dtype=torch.uint8), {})
    save_snapshot(tmp_path / "a.safetensors", RUN, state)
    with pytest.raises(BadFile, match="a.safetensors is a file of another kind"):
        load_tune(tmp_path / "a.safetensors")
