"""LocalBlend on constructed maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ei2.local_blend import MapSum, local_blend, word_mask


def test_a_mask_by_hand():
    """A peak of 1 at row 1, column 3 of 4 x 5 grows to 3 x 3; 0.25 elsewhere stays under the threshold; doubled."""
    maps = torch.full((1, 4, 5), 0.25)
    maps[0, 1, 3] = 1
    expected = np.zeros((8, 10), dtype=bool)
    expected[0:6, 4:10] = True
    np.testing.assert_array_equal(word_mask(maps, (8, 10), 0.3)[0, 0].numpy(), expected)


def test_every_frame_has_its_own_maximum():
    maps = torch.zeros(2, 5, 5)
    maps[0, 2, 2], maps[1, 2, 2] = 1.0, 0.001
    mask = word_mask(maps, (5, 5), 0.3)
    assert torch.equal(mask[0], mask[1]) and mask[0].sum() == 9


def test_an_empty_frame_keeps_the_source():
    assert not word_mask(torch.zeros(1, 4, 4), (8, 8), 0.3).any()


@pytest.mark.parametrize("size", [(6, 10), (7, 9), (12, 20)])
def test_masks_against_numpy(size):
    maps = torch.rand(3, 6, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for frame, mask in zip(maps.numpy(), word_mask(maps, size, 0.8)):
        padded = np.pad(frame, 1, constant_values=-np.inf)
        grown = np.stack([padded[i : i + 6, j : j + 10] for i in range(3) for j in range(3)]).max(axis=0)
        rows, columns = (np.arange(n) * m // n for n, m in zip(size, frame.shape))
        large = grown[np.ix_(rows, columns)]
        np.testing.assert_array_equal(mask[0].numpy(), large / large.max() > 0.8)


def test_maps_are_averaged_over_layers_and_steps():
    generator = torch.Generator().manual_seed(0)
    layers = [torch.rand(2, 12, 5, generator=generator, dtype=torch.float64) for _ in range(3)]
    total = MapSum()
    for maps in layers:
        total.add(maps, 3, 4)
    tokens = torch.tensor([0.0, 1, 0, 1, 0])
    expected = np.mean([maps.numpy()[..., 1] + maps.numpy()[..., 3] for maps in layers], axis=0).reshape(2, 3, 4)
    np.testing.assert_allclose(total.of(tokens).numpy(), expected, atol=1e-12)
    assert total.total.numel() == layers[0].numel()  # however many were added


def test_maps_of_other_sizes_are_refused():
    total = MapSum()
    with pytest.raises(ValueError, match="no attention maps yet"):
        total.of(torch.ones(5))
    total.add(torch.rand(2, 12, 5), 3, 4)
    for shape, height, width in [((2, 12, 5), 4, 3), ((2, 6, 5), 3, 2), ((1, 12, 5), 3, 4)]:
        with pytest.raises(ValueError, match=f"{shape[0]} frames of {height} x {width} for 5 tokens cannot be added"):
            total.add(torch.rand(shape), height, width)


def test_outside_the_mask_the_source_stays():
    source, target = torch.zeros(2, 4, 3, 3), torch.ones(2, 4, 3, 3)
    mask = torch.zeros(2, 1, 3, 3, dtype=torch.bool)
    mask[0, 0, 1, 2] = True
    result = local_blend(source, target, mask)
    assert torch.equal(result, mask.expand_as(result).float())
