"""The states that a tuning gives away as it goes, and what resumes from them."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from ei2.optimizers import FACTORED
from ei2.tuning import NonFiniteLoss, TrainingState, TuneSettings

from .small_tuning import SCHEDULE, Denoiser, clip, run, tune


def stopped_after(done: int, settings: TuneSettings, every: int):
    """A run cancelled behind a step, and copies of its states and weights by step."""

    class Cancelled(Exception):
        pass

    denoiser, states = Denoiser(), {}

    def on_state(state: TrainingState) -> None:
        weights = {name: weight.clone() for name, weight in denoiser.state_dict().items()}
        states[len(state.losses)] = copy.deepcopy(dataclasses.replace(state, weights=weights))

    def on_step(step, loss):
        if step == done:
            raise Cancelled

    options = {"on_step": on_step, "on_state": on_state, "state_every": every}
    with pytest.raises(Cancelled):
        tune(denoiser, clip(), SCHEDULE, denoiser.parameters(), settings, **options)
    return states


@pytest.mark.parametrize(
    "options",
    [{}, {"precision": "bf16"}, {"window_frames": 2}, {"optimizer": FACTORED}],
    ids=lambda options: str(options),
)
def test_a_resumed_run_ends_as_an_unbroken_one(options):
    settings = TuneSettings(11, learning_rate=1e-2, seed=2, **options)
    expected, losses = run(settings)
    states = stopped_after(8, settings, every=4)
    assert list(states) == [4, 8]  # the one of the step at which it is cancelled, too
    for state in states.values():
        denoiser = Denoiser()
        denoiser.load_state_dict(state.weights)
        heard = []
        again = tune(
            denoiser,
            clip(),
            SCHEDULE,
            denoiser.parameters(),
            settings,
            start=state,
            on_step=lambda step, loss: heard.append(step),
        )
        assert again == losses and heard == list(range(len(state.losses) + 1, 12))
        for a, b in zip(denoiser.parameters(), expected.parameters()):
            assert torch.equal(a, b)


def test_states_come_every_so_many_steps_and_at_the_end():
    for steps, every, wanted in ((7, 3, [3, 6, 7]), (6, 3, [3, 6]), (4, 0, []), (2, 5, [2])):
        heard = []
        run(TuneSettings(steps=steps), on_state=lambda state: heard.append(len(state.losses)), state_every=every)
        assert heard == wanted


def test_a_finished_run_has_nothing_to_do_and_can_be_longer():
    settings = TuneSettings(steps=4, learning_rate=1e-2)
    denoiser, states = Denoiser(), []
    options = {"on_state": lambda state: states.append(copy.deepcopy(state)), "state_every": 9}
    losses = tune(denoiser, clip(), SCHEDULE, denoiser.parameters(), settings, **options)
    before = copy.deepcopy(denoiser.state_dict())
    assert tune(denoiser, clip(), SCHEDULE, denoiser.parameters(), settings, start=states[0]) == losses
    assert all(torch.equal(weight, before[name]) for name, weight in denoiser.state_dict().items())
    longer = dataclasses.replace(settings, steps=6)
    assert tune(denoiser, clip(), SCHEDULE, denoiser.parameters(), longer, start=states[0]) == run(longer)[1]


def test_what_broke_is_not_kept():
    """A state is checked before it is given away: the last good one stays."""
    denoiser, kept, calls = Denoiser(), [], []

    def breaks_down(x, sigma):
        calls.append(1)
        return denoiser(x, sigma) * (float("nan") if len(calls) == 4 else 1)

    with pytest.raises(NonFiniteLoss, match="at step 4 of 9"):
        tune(
            breaks_down,
            clip(),
            SCHEDULE,
            denoiser.parameters(),
            TuneSettings(steps=9),
            on_state=lambda state: kept.append(len(state.losses)),
            state_every=2,
        )
    assert kept == [2]
