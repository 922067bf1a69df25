"""Masks brought to the frames' number and size."""

from __future__ import annotations

import pytest
import torch

from ei2.masks import KeptOutside, frame_masks


def test_one_mask_serves_all_frames_and_one_per_frame_stays():
    one = torch.rand(8, 12, generator=torch.Generator().manual_seed(0))
    many = torch.stack([one, one / 2, one * 0])
    assert torch.equal(frame_masks(one, 3, 8, 12), one.expand(3, 1, 8, 12))
    assert torch.equal(frame_masks(many, 3, 8, 12), many.unsqueeze(1))


def test_scaled_down_it_covers_in_part():
    mask = torch.zeros(1, 16, 16)
    mask[:, :, :8] = 1
    small = frame_masks(mask, 2, 4, 4)
    assert small.shape == (2, 1, 4, 4)
    assert torch.equal(small[0, 0, :, 0], torch.ones(4)) and torch.equal(small[0, 0, :, 3], torch.zeros(4))
    assert small.mean() == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize(
    "mask, message",
    [
        (torch.zeros(2, 8, 12), "There are 3 frames, but the mask has 2: give one mask, or one per frame"),
        (torch.zeros(1, 12, 12), "The mask is 12 x 12, a different shape of picture than the frames' 12 x 8"),
        (torch.full((1, 8, 12), 255.0), "values from 255 to 255, but they should lie between 0 and 1"),
        (torch.full((1, 8, 12), float("nan")), "NaN or infinite"),
        (torch.zeros(1, 1, 8, 12), "give one mask, or one per frame"),
    ],
)
def test_refuses_what_does_not_fit(mask, message):
    with pytest.raises(ValueError, match=message):
        frame_masks(mask, 3, 8, 12)


def test_what_resizing_adds_is_clipped():
    """Bicubic interpolation overshoots at edges."""
    mask = torch.zeros(1, 1, 8, 12)
    mask[..., 6:] = 1
    larger = torch.nn.functional.interpolate(mask, scale_factor=2, mode="bicubic")[0]
    assert larger.max() > 1.05 and larger.min() < -0.05
    found = frame_masks(larger, 3, 16, 24)
    assert found.max() == 1 and found.min() == 0


def test_a_cell_has_the_mean_of_what_it_covers():
    mask = torch.rand(1, 16, 24, generator=torch.Generator().manual_seed(0))
    expected = mask.view(4, 4, 6, 4).mean(dim=(1, 3))
    torch.testing.assert_close(frame_masks(mask, 2, 4, 6), expected.expand(2, 1, 4, 6))
    assert frame_masks(torch.ones(1, 17, 25), 2, 4, 6).min() == 1
    assert frame_masks(torch.ones(1, 2, 3), 2, 4, 6).shape == (2, 1, 4, 6)


def test_kept_outside_follows_the_trajectory():
    trajectory, x = torch.arange(9.0).view(9, 1, 1, 1, 1).expand(9, 1, 2, 1, 3), torch.full((1, 2, 1, 3), 9.0)
    kept = KeptOutside(torch.tensor([0.0, 0.25, 1.0]).view(1, 1, 1, 3), trajectory)
    assert kept(0, x)[0, 0, 0].tolist() == [1, 5, 9]  # 8 steps: the square root of the mask
    assert kept(6, x)[0, 1, 0].tolist() == [7, 8, 9]


@pytest.mark.parametrize("steps", [4, 20, 100])
def test_a_grey_cell_is_drawn_back_as_strongly_in_any_number_of_steps(steps):
    """What the sampling moves at once is left by the same share after all its steps."""
    kept = KeptOutside(torch.full((1, 1, 1, 1), 0.5), torch.zeros(steps + 1, 1, 1, 1, 1))
    x = torch.ones(1, 1, 1, 1)
    for step in range(steps):
        x = kept(step, x)
    assert x.item() == pytest.approx(0.5**4, rel=1e-4)
