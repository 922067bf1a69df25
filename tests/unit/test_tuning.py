"""The training loop on a small denoiser, and the loss against NumPy."""

from __future__ import annotations

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch

from ei2.tuning import NonFiniteLoss, TrainingState, TuneSettings, diffusion_loss
from ei2.tuning import tune as tuning_steps

SCHEDULE = torch.from_numpy(np.sqrt(1 / np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2) - 1)).float()


class Denoiser(torch.nn.Module):
    """Predicts ε from the noisy latents by two convolutions."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(4, 16, 3, padding=1), torch.nn.SiLU(), torch.nn.Conv2d(16, 4, 3, padding=1)
        )

    def forward(self, x, sigma):
        sigma = sigma.view(-1, 1, 1, 1)
        return x - sigma * self.layers(x / (1 + sigma**2).sqrt())


def clip() -> torch.Tensor:
    return torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(0))


def tune(
    denoise,
    clean,
    schedule,
    parameters,
    settings,
    prediction="eps",
    start=None,
    on_step=None,
    on_state=None,
    state_every=0,
    on_window=None,
):
    """Every loss of a tuning, with what its steps give handed to functions."""
    losses = list(start.losses) if start else []

    def denoise_window(x, sigma, window):
        if on_window:
            on_window(window)
        return denoise(x, sigma)

    for step in tuning_steps(denoise_window, clean, schedule, parameters, settings, prediction, start):
        if state_every and (step.number % state_every == 0 or step.number == settings.steps):
            on_state(step.state())
        losses.append(float(step.loss))
        if on_step:
            on_step(step.number, step.loss)
    return losses


def run(settings: TuneSettings, **options):
    denoiser = Denoiser()
    losses = tune(denoiser, clip(), SCHEDULE, denoiser.parameters(), settings, **options)
    return denoiser, losses


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_it_learns(prediction):
    _, losses = run(TuneSettings(steps=150, learning_rate=1e-2), prediction=prediction)
    assert len(losses) == 150
    assert np.mean(losses[-40:]) < 0.7 * np.mean(losses[:10])


def test_the_same_seed_gives_the_same_result():
    (first, losses), (second, again) = (run(TuneSettings(steps=5, seed=3)) for _ in range(2))
    assert losses == again
    for a, b in zip(first.parameters(), second.parameters()):
        assert torch.equal(a, b)
    assert run(TuneSettings(steps=5, seed=4))[1] != losses


def test_the_largest_seed():
    assert math.isfinite(run(TuneSettings(steps=1, seed=0xFFFFFFFFFFFFFFFF))[1][0])


def test_the_global_random_state_is_left_alone():
    denoiser = Denoiser()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    tune(denoiser, clip(), SCHEDULE, denoiser.parameters(), TuneSettings(steps=3))
    assert torch.equal(torch.rand(3), expected)


def test_what_a_step_sees():
    """One timestep for the whole video, of the schedule and over its whole range; its own normal noise per frame."""
    denoiser, clean, sigmas, noises = Denoiser(), clip(), [], []

    def denoise(x, sigma):
        assert sigma.shape == (3,) and (sigma == sigma[0]).all()
        sigmas.append(float(sigma[0]))
        noises.append((x - clean) / sigma[0])
        return denoiser(x, sigma)

    tune(denoise, clean, SCHEDULE, denoiser.parameters(), TuneSettings(steps=300))
    timesteps = np.searchsorted(SCHEDULE.numpy(), np.array(sigmas, dtype=np.float32))
    np.testing.assert_array_equal(SCHEDULE.numpy()[timesteps], np.array(sigmas, dtype=np.float32))
    counts = np.histogram(timesteps, bins=5, range=(0, 1000))[0]
    assert counts.min() > 35  # uniform would be 60
    noise = torch.stack([n for n, s in zip(noises, sigmas) if s > 0.1])  # less σ leaves too little precision
    assert abs(float(noise.mean())) < 0.02 and abs(float(noise.std()) - 1) < 0.02
    frames = noise.movedim(1, 0).flatten(1)
    assert np.abs(np.corrcoef(frames.numpy()) - np.eye(3)).max() < 0.03


@pytest.mark.parametrize("sigma", [0.04, 1.0, 14.6])
def test_the_losses_against_direct_errors(sigma):
    """The network's own output against its target, ε or v = √ᾱ ε - √(1-ᾱ) x₀, in float64."""
    rng = np.random.default_rng(0)
    clean, noise, output = rng.standard_normal((3, 2, 4, 5, 5))
    a, b = 1 / np.sqrt(1 + sigma**2), sigma / np.sqrt(1 + sigma**2)  # √ᾱ, √(1-ᾱ)
    z = a * clean + b * noise
    denoised = {"eps": (z - b * output) / a, "v": a * z - b * output}
    target = {"eps": noise, "v": a * noise - b * clean}
    for prediction in ("eps", "v"):
        expected = np.mean((output - target[prediction]) ** 2)
        loss = diffusion_loss(
            torch.from_numpy(denoised[prediction]), torch.from_numpy(clean), torch.tensor(sigma), prediction
        )
        assert float(loss) == pytest.approx(expected, rel=1e-3)


def test_a_loss_that_is_no_number_is_an_error_that_names_the_remedy():
    calls = []

    def breaks_down(x, sigma):
        calls.append(1)
        return denoiser(x, sigma) * (float("nan") if len(calls) == 3 else 1)

    for steps in (9, 3):
        calls.clear()
        denoiser = Denoiser()
        with pytest.raises(NonFiniteLoss, match=rf"nan at step 3 of {steps}.*learning rate \(now 0.01\).*fp32"):
            tune(breaks_down, clip(), SCHEDULE, denoiser.parameters(), TuneSettings(steps, learning_rate=1e-2))
        assert len(calls) == min(steps, 4)  # a loss is read one step late


def test_weights_that_break_in_the_last_step_are_an_error():
    """The loss is finite, its gradient is not: no later step would notice."""
    weight = torch.nn.Parameter(torch.zeros(1))
    denoise = lambda x, sigma: x.detach() * 0 + weight.sqrt()  # the root's slope at 0 is infinite
    with pytest.raises(NonFiniteLoss, match="at step 1 of 1"):
        tune(denoise, clip(), SCHEDULE, [weight], TuneSettings(steps=1))


def test_on_step_hears_of_every_step_and_may_cancel():
    class Cancelled(Exception):
        pass

    heard = []

    def on_step(step, loss):
        heard.append((step, loss))
        if step == 4:
            raise Cancelled

    with pytest.raises(Cancelled):
        run(TuneSettings(steps=100), on_step=on_step)
    assert [step for step, _ in heard] == [1, 2, 3, 4]
    assert [loss for _, loss in heard] == run(TuneSettings(steps=4))[1]


def test_bf16_autocast_keeps_the_trainables_in_float32():
    dtypes = []
    denoiser = Denoiser()
    denoiser.layers[0].register_forward_hook(lambda _, __, output: dtypes.append(output.dtype))
    losses = tune(denoiser, clip(), SCHEDULE, denoiser.parameters(), TuneSettings(steps=3, precision="bf16"))
    assert set(dtypes) == {torch.bfloat16}
    assert all(parameter.dtype == torch.float32 for parameter in denoiser.parameters())
    assert losses[0] == pytest.approx(run(TuneSettings(steps=1))[1][0], rel=0.05)


def test_only_the_given_parameters_move():
    denoiser = Denoiser()
    before = [parameter.detach().clone() for parameter in denoiser.parameters()]
    tune(denoiser, clip(), SCHEDULE, denoiser.layers[2].parameters(), TuneSettings(steps=2))
    moved = [not torch.equal(a, b) for a, b in zip(before, denoiser.parameters())]
    assert moved == [False, False, True, True]


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


@pytest.mark.parametrize("precision, window_frames", [("fp32", 0), ("bf16", 0), ("fp32", 2)])
def test_a_resumed_run_ends_as_an_unbroken_one(precision, window_frames):
    settings = TuneSettings(11, learning_rate=1e-2, seed=2, precision=precision, window_frames=window_frames)
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


def test_windows_are_what_the_model_sees():
    """Each step's frames are a window of the clip, told beforehand; the loss is over them alone."""
    clean, told, seen = clip().repeat(4, 1, 1, 1), [], []
    denoiser = Denoiser()

    def denoise(x, sigma):
        seen.append((len(x), len(sigma)))
        return denoiser(x, sigma)

    settings = TuneSettings(steps=30, learning_rate=1e-3, window_frames=5)
    losses = tune(denoise, clean, SCHEDULE, denoiser.parameters(), settings, on_window=told.append)
    assert seen == [(5, 5)] * 30 and len(losses) == 30
    starts = {window.start for window in told}
    assert all(window.stop - window.start == 5 and 0 <= window.start <= 7 for window in told) and len(starts) > 4


def test_a_windows_loss_is_that_of_its_frames():
    """With a denoiser that returns the clean latents of the window it was told of, nothing is left to learn."""
    clean = torch.arange(12.0).view(12, 1, 1, 1).expand(12, 4, 2, 2).clone()
    window, weight = [slice(0)], torch.nn.Parameter(torch.zeros(()))
    denoise = lambda x, sigma: clean[window[-1]] + weight
    settings = TuneSettings(steps=9, window_frames=4)
    losses = tune(denoise, clean, SCHEDULE, [weight], settings, on_window=window.append)
    assert losses == [0.0] * 9 and len(set(w.start for w in window[1:])) > 2


def test_windows_as_long_as_the_clip_change_nothing():
    settings = TuneSettings(steps=4, learning_rate=1e-2)
    expected = run(settings)[1]
    for frames in (3, 7):
        assert run(dataclasses.replace(settings, window_frames=frames))[1] == expected
    assert run(dataclasses.replace(settings, window_frames=2))[1] != expected
