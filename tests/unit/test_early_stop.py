"""When a tuning ends by itself: the rule alone, and in the training loop."""

from __future__ import annotations

import pytest
import torch

from ei2.early_stop import CHECKS, LEAST, EarlyStop
from ei2.tuning import TuneSettings, tune

MOST = 500
EVERY = MOST // CHECKS


def asked(levels, untuned=()):
    """At which step a tuning with these losses at its checks would end."""
    measured = iter(levels)
    stop = EarlyStop(MOST, lambda: next(measured), untuned)
    return next((done for done in range(MOST) if stop(done)), None)


def test_it_ends_at_the_first_check_that_finds_too_little():
    assert asked([[1.0, 0.1], [0.9, 0.08], [0.9, 0.08]]) == 3 * EVERY


def test_every_noise_level_counts_alike():
    """Half of the smallest loss is as much as half of the largest."""
    assert asked([[1.0, 0.01], [1.0, 0.005], [1.0, 0.005]]) == 3 * EVERY


@pytest.mark.parametrize("change, end", [(1.5 * LEAST, 2 * EVERY), (0.5 * LEAST, EVERY)])
def test_the_untuned_model_is_the_first_to_compare_with(change, end):
    assert asked([[1.0 - change], [1.0 - change]], untuned=[1.0]) == end


def test_a_loss_that_rises_ends_it():
    assert asked([[1.0], [1.2]]) == 2 * EVERY


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_does_not_end_it(broken):
    assert asked([[1.0], [broken], [broken]]) is None


def test_the_loop_asks_before_each_step():
    weight, heard = torch.nn.Parameter(torch.zeros(1)), []

    def enough(done):
        heard.append(done)
        return done == 3

    denoise = lambda x, sigma, window: x + weight
    steps = tune(denoise, torch.zeros(2, 4, 3, 3), torch.ones(1000), [weight], TuneSettings(9), enough=enough)
    assert [step.number for step in steps] == [1, 2, 3] and heard == [0, 1, 2, 3]


def test_a_tuning_without_a_step_is_none():
    weight = torch.nn.Parameter(torch.zeros(1))
    denoise = lambda x, sigma, window: x + weight
    steps = tune(
        denoise, torch.zeros(2, 4, 3, 3), torch.ones(1000), [weight], TuneSettings(9), enough=lambda done: True
    )
    assert list(steps) == []
