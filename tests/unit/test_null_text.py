"""Null-text optimisation against float64 NumPy with its own Adam, on a model whose gradient is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ei2.null_text import NullTextSettings, early_stop, learning_rate, optimize_unconditional, step_ranges
from ei2.tuning import NonFiniteLoss

FRAMES, LENGTH, WIDTH, STEPS = 2, 3, 4, 5
SHAPE = (FRAMES, 4, 2, 2)
RNG = np.random.default_rng(0)
READ = RNG.normal(size=(LENGTH * WIDTH, 4))  # what the model takes from an unconditional embedding, by channel
CONDITIONAL = RNG.normal(size=(4,)) * 0.3
SLOPE = 0.1
SIGMAS = np.array([9.0, 5.0, 2.5, 1.0, 0.3, 0.0])
TRAJECTORY = [RNG.normal(size=SHAPE) * np.sqrt(1 + sigma**2) for sigma in SIGMAS]
START = RNG.normal(size=(1, LENGTH, WIDTH)) * 0.1


def predict(latents, sigma, text):
    """ε, linear in latents and text; the same text for all frames."""
    known = torch.as_tensor(CONDITIONAL) if text is None else text.double().flatten() @ torch.as_tensor(READ)
    return SLOPE * latents + known.to(latents)[None, :, None, None]


def by_formula(settings: NullTextSettings, steps: int = STEPS):
    """Embeddings, each step's losses and where the latents end, with Adam written out."""
    latents, text, g = TRAJECTORY[0], START.ravel().copy(), settings.guidance
    found, histories = [], []
    for i in range(steps):
        scale, history = SIGMAS[i + 1] - SIGMAS[i], []
        first, second = np.zeros_like(text), np.zeros_like(text)
        following = lambda text: (
            latents + scale * (SLOPE * latents + ((1 - g) * (text @ READ) + g * CONDITIONAL)[None, :, None, None])
        )
        for n in range(1, settings.inner_steps + 1):
            error = following(text) - TRAJECTORY[i + 1]
            history.append((error**2).mean() / (1 + SIGMAS[i + 1] ** 2))
            by_channel = 2 * error.sum(axis=(0, 2, 3)) / error.size / (1 + SIGMAS[i + 1] ** 2)
            gradient = scale * (1 - g) * (READ @ by_channel)
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            rate = 1e-2 * 50 / steps * (1 - i * 50 / steps / 100)
            text = text - rate * (first / (1 - 0.9**n)) / (np.sqrt(second / (1 - 0.999**n)) + 1e-8)
            if history[-1] < 1e-5 + 2e-5 * i * 50 / steps:
                break
        latents = following(text)
        found.append(text.reshape(LENGTH, WIDTH))
        histories.append(history)
    return np.stack(found), histories, latents


DEFAULT = NullTextSettings(inner_steps=4)


def optimize(settings=DEFAULT, predict=predict, **options):
    trajectory = [torch.as_tensor(latents) for latents in TRAJECTORY]
    start = torch.as_tensor(START, dtype=torch.float32)
    return optimize_unconditional(predict, trajectory, torch.as_tensor(SIGMAS), start, settings, **options)


@pytest.mark.parametrize("inner_steps", [1, 4, 30])
@pytest.mark.parametrize("guidance", [3.0, 7.5])
def test_against_numpy(inner_steps, guidance):
    settings = NullTextSettings(inner_steps, guidance)
    embeddings, losses = optimize(settings)
    expected, histories, _ = by_formula(settings)
    assert embeddings.shape == (STEPS, LENGTH, WIDTH) and embeddings.dtype == torch.float32
    np.testing.assert_allclose(embeddings.numpy(), expected, atol=2e-5)
    np.testing.assert_allclose(losses, [history[-1] for history in histories], rtol=2e-3)


def test_guided_sampling_comes_closer_to_the_clip():
    def error(embeddings):
        latents = torch.as_tensor(TRAJECTORY[0])
        for i, text in enumerate(embeddings):
            unconditional, conditional = predict(latents, None, text), predict(latents, None, None)
            noise = unconditional + 7.5 * (conditional - unconditional)
            latents = latents + (SIGMAS[i + 1] - SIGMAS[i]) * noise
        return (latents - torch.as_tensor(TRAJECTORY[-1])).square().mean().item()

    plain = torch.as_tensor(START).expand(STEPS, -1, -1)
    assert error(optimize(NullTextSettings(30))[0]) < 0.2 * error(plain)


def test_a_step_that_is_good_enough_stops_early():
    """Where the start already gives the next latents, one inner step is made; the bar jumps ahead."""
    wanted = [torch.as_tensor(TRAJECTORY[0])]
    start = torch.as_tensor(START, dtype=torch.float32)
    unread = lambda latents, sigma, text: SLOPE * latents + (0 if text is None else 0 * text.sum())
    for before, after in zip(SIGMAS, SIGMAS[1:]):
        wanted.append(wanted[-1] * (1 + (after - before) * SLOPE))
    calls = []
    record = lambda done, loss: calls.append(done)
    optimize_unconditional(unread, wanted, torch.as_tensor(SIGMAS), start, NullTextSettings(10), record)
    assert calls == [10, 20, 30, 40, 50]


def test_progress_counts_every_inner_step():
    calls = []
    optimize(on_step=lambda done, loss: calls.append(done))
    assert calls == list(range(1, 4 * STEPS + 1))


def test_cancelling_comes_through():
    def cancel(done, loss):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        optimize(on_step=cancel)


def test_only_the_embedding_learns():
    weight = torch.nn.Parameter(torch.ones(()))
    start = torch.as_tensor(START, dtype=torch.float32)
    before = start.clone()
    trajectory = [torch.as_tensor(latents) for latents in TRAJECTORY]
    weighted = lambda *args: weight * predict(*args)
    optimize_unconditional(weighted, trajectory, torch.as_tensor(SIGMAS), start, NullTextSettings(2))
    assert weight.grad is None and torch.equal(start, before) and not start.requires_grad


def test_breaking_down_is_told():
    broken = lambda latents, sigma, text: predict(latents, sigma, text) * (float("nan") if sigma < 3 else 1)
    with pytest.raises(NonFiniteLoss, match="loss became nan in null-text optimisation at step 3 of 5"):
        optimize(predict=broken)


def test_arguments_that_do_not_fit():
    with pytest.raises(ValueError, match="2 latents do not fit 6 noise levels"):
        optimize_unconditional(
            predict, [torch.zeros(SHAPE)] * 2, torch.as_tensor(SIGMAS), torch.zeros(1, 3, 4), NullTextSettings()
        )
    with pytest.raises(ValueError, match="inner_steps is 0"):
        optimize(NullTextSettings(0))


@pytest.mark.parametrize("steps", [20, 50, 200])
def test_rates_and_stops(steps):
    """As published at 50 steps; others run through the same range, and their rates add up to the same."""
    assert sum(learning_rate(i, steps) for i in range(steps)) == pytest.approx(0.375 + 0.125 / steps)
    for i in range(steps):
        published = i * 50 / steps
        assert learning_rate(i, steps) == pytest.approx(1e-2 * (1 - published / 100) * 50 / steps)
        assert early_stop(i, steps) == pytest.approx(1e-5 + 2e-5 * published)


def test_ranges_meet_between_the_timesteps():
    timesteps = [981, 961, 21, 1]
    ranges = step_ranges(timesteps, 999)
    assert ranges[0][0] == 0 and ranges[-1][1] == 1
    assert [a[1] for a in ranges[:-1]] == [b[0] for b in ranges[1:]]
    for timestep, (start, end) in zip(timesteps, ranges):
        assert start < 1 - timestep / 999 < end
    assert step_ranges([999], 999) == [(0.0, 1.0)]
