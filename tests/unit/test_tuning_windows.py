"""The training loop on windows of a clip."""

from __future__ import annotations

import dataclasses

import torch

from ei2.tuning import TuneSettings

from .small_tuning import SCHEDULE, Denoiser, clip, run, tune


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
