"""The measures against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ei2.measures import (
    added_change,
    consecutive_cosines,
    cosines_to,
    flicker,
    frame_change,
    masked_psnr,
    mean_pair_cosine,
    psnr,
)


def test_psnr_against_numpy():
    rng = np.random.default_rng(0)
    a, b = rng.random((3, 4, 5, 3)), rng.random((3, 4, 5, 3))
    expected = 10 * np.log10(1 / np.mean((a - b) ** 2))
    assert psnr(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(expected, rel=1e-12)


def test_psnr_of_a_known_error():
    a = torch.full((2, 8, 8, 3), 0.5)
    assert psnr(a, a + 0.1) == pytest.approx(20.0, abs=1e-4)


def test_psnr_of_equal_clips_is_infinite():
    a = torch.rand(2, 3, 8, 8)
    assert psnr(a, a.clone()) == float("inf")


def test_psnr_refuses_different_shapes():
    with pytest.raises(ValueError, match=r"\(2, 8, 8, 3\) and \(2, 8, 4, 3\)"):
        psnr(torch.zeros(2, 8, 8, 3), torch.zeros(2, 8, 4, 3))


def test_masked_psnr_counts_only_the_mask():
    a, b = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    b[..., :2], b[..., 2:] = 0.1, 0.5
    mask = torch.zeros(2, 1, 4, 4)
    mask[..., :2] = 1
    assert masked_psnr(a, b, mask) == pytest.approx(20.0, abs=1e-4)
    assert masked_psnr(a, b, 1 - mask) == pytest.approx(6.0206, abs=1e-4)
    assert masked_psnr(a, b, torch.full((1, 1, 1, 1), 0.3)) == pytest.approx(psnr(a, b), abs=1e-9)
    assert masked_psnr(a, a, mask) == float("inf")


def test_masked_psnr_refuses_an_empty_mask_and_different_shapes():
    a = torch.zeros(2, 3, 4, 4)
    with pytest.raises(ValueError, match="empty mask"):
        masked_psnr(a, a, torch.zeros(2, 1, 4, 4))
    with pytest.raises(ValueError, match="different shapes"):
        masked_psnr(a, torch.zeros(1, 3, 4, 4), torch.ones(1, 1, 4, 4))


def test_flicker_ignores_motion_and_constant_errors():
    truth = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert flicker(truth + 0.2, truth) == pytest.approx(0, abs=1e-6)
    blinking = truth + torch.tensor([0.1, -0.1, 0.1, -0.1]).view(4, 1, 1, 1)
    assert flicker(blinking, truth) == pytest.approx(0.2, abs=1e-6)


def test_flicker_refuses_a_single_frame_and_different_shapes():
    with pytest.raises(ValueError, match="at least two frames"):
        flicker(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match="different shapes"):
        flicker(torch.zeros(2, 3, 4, 4), torch.zeros(3, 3, 4, 4))


def test_change_from_frame_to_frame_against_numpy():
    rng = np.random.default_rng(1)
    edit, source = rng.random((4, 5, 6, 3)), rng.random((4, 5, 6, 3))
    ours, theirs = np.abs(np.diff(edit, axis=0)), np.abs(np.diff(source, axis=0))
    found = frame_change(torch.from_numpy(edit))
    np.testing.assert_allclose(found.numpy(), ours.mean(axis=(1, 2, 3)), rtol=1e-12)
    found = added_change(torch.from_numpy(edit), torch.from_numpy(source))
    np.testing.assert_allclose(found.numpy(), np.maximum(ours - theirs, 0).mean(axis=(1, 2, 3)), rtol=1e-12)


def test_added_change_is_flicker_where_the_source_is_still():
    source = torch.rand(1, 8, 8, 3, generator=torch.Generator().manual_seed(0)).expand(4, -1, -1, -1)
    assert added_change(source * 0.5, source).abs().max() == 0
    blinking = source + torch.tensor([0.1, -0.1, 0.1, -0.1]).view(4, 1, 1, 1)
    assert added_change(blinking, source).tolist() == pytest.approx([0.2, 0.2, 0.2], abs=1e-6)
    assert added_change(source, blinking).abs().max() == 0  # calmer than the source is no flicker


def test_cosines_against_numpy():
    rng = np.random.default_rng(2)
    embeddings, text = rng.standard_normal((4, 7)), rng.standard_normal(7)
    cosine = lambda a, b: a @ b / np.sqrt((a @ a) * (b @ b))
    frames = torch.from_numpy(embeddings)
    near = [cosine(embeddings[i], embeddings[i + 1]) for i in range(3)]
    pairs = [cosine(embeddings[i], embeddings[j]) for i in range(4) for j in range(4) if i != j]
    assert consecutive_cosines(frames).tolist() == pytest.approx(near, abs=1e-12)
    assert mean_pair_cosine(frames) == pytest.approx(np.mean(pairs), abs=1e-12)
    to_text = [cosine(one, text) for one in embeddings]
    assert cosines_to(frames, torch.from_numpy(text)).tolist() == pytest.approx(to_text, abs=1e-12)


def test_measures_over_time_refuse_a_single_frame():
    for measure in (frame_change, consecutive_cosines, mean_pair_cosine):
        with pytest.raises(ValueError, match="at least two frames"):
            measure(torch.zeros(1, 4))
    with pytest.raises(ValueError, match="different shapes"):
        added_change(torch.zeros(2, 4), torch.zeros(3, 4))
