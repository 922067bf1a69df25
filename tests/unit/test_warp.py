"""Maps of places in pictures."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ei2.warp import grown, moved, pixels, resizing, seen_at


def test_places_under_a_map():
    shift = torch.tensor([[1.0, 0, 3], [0, 1, -2], [0, 0, 1]])
    places = moved(shift, 4, 6)
    assert places.shape == (1, 2, 4, 6)
    assert places[0, :, 1, 2].tolist() == [5.0, -1.0]


def test_a_picture_seen_at_its_own_places_is_itself_and_beside_them_its_edge_or_nothing():
    picture = torch.rand(1, 3, 5, 7)
    places = pixels(5, 7, picture).unsqueeze(0)
    assert torch.allclose(seen_at(picture, places), picture, atol=1e-5)
    away = places - torch.tensor([3.0, 0]).view(1, 2, 1, 1)
    assert torch.allclose(seen_at(picture, away)[..., 0], picture[..., 0], atol=1e-5)
    assert not seen_at(picture, away, "zeros")[..., :2].any()


def test_resizing_maps_to_the_same_point_of_the_picture():
    ramp = torch.arange(12.0).expand(1, 1, 4, 12)
    small = F.interpolate(ramp, (4, 4), mode="area")
    places = moved(resizing(1 / 3, 1.0), 4, 12).float()
    assert torch.allclose(seen_at(small, places)[..., 1:-1], ramp[..., 1:-1], atol=1e-4)


def test_grown_is_a_square_window():
    masks = (torch.rand(2, 1, 20, 30) > 0.97).float()
    assert torch.equal(grown(masks, 3), F.max_pool2d(masks, 7, 1, 3))
