"""Where the object is in each frame of an edit, and how well its form agrees from frame to frame.

The object is what differs from the correct background without it. Undoing the correct motion (position, angle, size,
stretch) brings all frames into one pose; there the object's region must stay the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from miniature.scene import View, object_mask, render
from miniature.world import SIZE

DIFFERENCE = 0.12  # from the background, in 0..1, of the mean over 3 x 3 pixels: larger ones belong to the object
REACH = 1.9  # radii: the object is looked for up to this distance from its true centre
MOST = 0.6  # share of that disc: what fills more of it is a wrong background, not an object
GRID = 64  # samples per axis of the common pose
MOSTLY = 0.5  # share of the object that must be visible for a frame to count


def visible(views: Sequence[View]) -> torch.Tensor:
    """Whether at least half of the object lies in the picture and nothing hides it, `f` booleans."""
    alone = [view.edited(actors=(view.actors[0].edited(x=SIZE / 2, y=SIZE / 2),)) for view in views]
    whole = object_mask(alone)
    seen = object_mask(views)
    return seen.sum(dim=(1, 2, 3)) >= MOSTLY * whole.sum(dim=(1, 2, 3))


def regions(pictures: torch.Tensor, views: Sequence[View]) -> torch.Tensor:
    """The object's region in pictures `f 3 h w` in 0..1 that should show the views, `f 1 h w` of 0 and 1: the largest
    connected region near its true place that differs from the background, with its holes filled. Nothing, if nearly
    everything there differs: then the background is wrong."""
    behind = render([view.edited(actors=view.actors[1:]) for view in views])
    difference = F.avg_pool2d((pictures - behind).abs(), 3, stride=1, padding=1, count_include_pad=False)
    found = difference.amax(dim=1) > DIFFERENCE
    axis = torch.arange(SIZE) + 0.5
    result = torch.zeros(len(views), 1, SIZE, SIZE)
    for region, here, view in zip(result, found, views):
        actor = view.actors[0]
        near = torch.hypot(axis.view(1, -1) - actor.x, axis.view(-1, 1) - actor.y) < REACH * actor.radius
        largest = _largest((here & near).numpy())
        if largest.sum() <= MOST * near.sum():
            region.copy_(largest)
    return result


def agreement(pictures: torch.Tensor, views: Sequence[View]) -> float:
    """The mean intersection over union of the object's regions in consecutive frames of `f 3 h w`, in a common pose;
    1 for the correct result, by whose own value (sampling keeps it just below 1) it is divided. A pair counts 0 if
    one of its frames shows no object. NaN if no two consecutive frames show at least half of it."""
    truth = _mean_overlap(regions(render(views), views), views)
    return min(_mean_overlap(regions(pictures, views), views) / truth, 1.0) if truth else math.nan


def centroid_error(pictures: torch.Tensor, views: Sequence[View], lost: float) -> float:
    """The mean distance in pixels between the centroids of the object's regions in the pictures and in the correct
    result, over the frames that show at least half of it; `lost` at most, and for frames without an object."""
    place, area = _centroids(regions(pictures, views))
    true_place, _ = _centroids(regions(render(views), views))
    distance = (place - true_place).norm(dim=1).clamp(max=lost)
    return float(torch.where(area > 0, distance, lost)[visible(views)].mean())


def _mean_overlap(regions: torch.Tensor, views: Sequence[View]) -> float:
    grid = torch.stack([_pose(view) for view in views])
    inside = grid.abs().amax(dim=-1) < 1
    clear = 1 - _hidden(views)
    posed, clear = (F.grid_sample(x, grid, align_corners=False)[:, 0] for x in (regions, clear))
    clear, shown = (clear > 0.99) & inside, visible(views)
    overlaps = []
    for i in range(len(views) - 1):
        if shown[i] and shown[i + 1]:
            first, second = (posed[j][clear[i] & clear[i + 1]] for j in (i, i + 1))
            union = torch.maximum(first, second).sum()
            overlaps.append(float(torch.minimum(first, second).sum() / union) if union else 0.0)
    return sum(overlaps) / len(overlaps) if overlaps else 0.0


def _pose(view: View) -> torch.Tensor:
    """Where each sample of the common pose lies in the picture, `GRID GRID 2` in -1..1."""
    actor = view.actors[0]
    axis = torch.linspace(-REACH, REACH, GRID)
    u = axis.view(1, -1) * actor.radius / math.sqrt(actor.stretch)
    v = axis.view(-1, 1) * actor.radius * math.sqrt(actor.stretch)
    cos, sin = math.cos(actor.angle), math.sin(actor.angle)
    x, y = actor.x + cos * u - sin * v, actor.y + sin * u + cos * v
    return torch.stack([x, y], dim=-1) * 2 / SIZE - 1


def _hidden(views: Sequence[View]) -> torch.Tensor:
    """Where another actor stands before the object, `f 1 h w` in 0..1."""
    masks = torch.zeros(len(views), 1, SIZE, SIZE)
    for number in range(1, len(views[0].actors)):
        masks = torch.maximum(masks, object_mask(views, number))
    return masks


def _largest(found: np.ndarray) -> torch.Tensor:
    """The largest connected region of `h w` booleans with its holes filled, as 0 and 1."""
    labels, count = ndimage.label(found, structure=np.ones((3, 3)))
    if not count:
        return torch.zeros(found.shape)
    sizes = np.bincount(labels.ravel())[1:]
    return torch.from_numpy(ndimage.binary_fill_holes(labels == 1 + sizes.argmax())).float()


def _centroids(regions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Centroids `f 2` (x, y) in pixels and areas `f` of regions `f 1 h w`."""
    regions = regions[:, 0]
    area = regions.sum(dim=(1, 2))
    y, x = (torch.arange(size) + 0.5 for size in regions.shape[1:])
    moments = torch.stack([(regions.sum(dim=1) * x).sum(dim=1), (regions.sum(dim=2) * y).sum(dim=1)], dim=1)
    return moments / area.clamp(min=1e-6).unsqueeze(1), area
