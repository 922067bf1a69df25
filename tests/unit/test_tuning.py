"""The training loop on a small denoiser, and the loss against NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from ei2.tuning import NonFiniteLoss, TuneSettings, diffusion_loss

from .small_tuning import SCHEDULE, Denoiser, clip, run, tune


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


def test_nothing_is_read_before_it_has_arrived():
    """A copy that nobody waits for needs a pinned source, which stays."""

    class Copies(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function is torch.Tensor.to and (kwargs or {}).get("non_blocking"):
                assert args[0].is_pinned()
            return function(*args, **(kwargs or {}))

    with Copies():
        run(TuneSettings(steps=1))


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
