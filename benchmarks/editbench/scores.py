"""The scores of an edited clip against the rendered correct result."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from ei2.measures import PSNR_LIMIT, flicker, masked_psnr, psnr
from miniature.judge import Judge
from miniature.world import COLORS, SIZE, Scene, object_mask, render

from .clips import VALUES, Clip, Edit

LOST = SIZE / 2  # pixels: the largest centroid error, also that of a frame without an object
LEAST_AREA = 0.1  # of the true object's area: a smaller region does not count as the object


def score(edited: torch.Tensor, clip: Clip, edit: Edit, judge: Judge) -> dict[str, float]:
    """The measures of an edited clip `f 3 128 128` in 0..1:

    * `success`: the share of frames in which the judge sees the target value of every changed attribute;
    * `preservation`: the share of the other attributes, over frames, that the judge sees unchanged;
    * `psnr`: in dB against the correct result, over all frames, at most 100;
    * `psnr_object`: the same over the union of the source's and the target's object, `psnr_background`: elsewhere;
    * `flicker`: the mean absolute change of the error from frame to frame, see `ei2.measures.flicker`;
    * `centroid_error`: see there.

    Raises ValueError if the edited clip differs from the source in its frames or size.
    """
    shape = (len(clip.scenes), 3, SIZE, SIZE)
    if tuple(edited.shape) != shape:
        raise ValueError(f"An edit of the clip {clip.name} should be {shape}, but is {tuple(edited.shape)}.")
    edited = edited.float().cpu().clamp(0, 1)
    targets = list(edit.target_scenes)
    truth = render(targets)
    union = torch.maximum(object_mask(list(clip.scenes)), object_mask(targets)).clamp(0, 1)

    seen = judge.see(edited)
    right = {
        attribute: [frame[attribute] == getattr(scene, attribute) for frame, scene in zip(seen, targets)]
        for attribute in VALUES
    }
    changed = [right[attribute] for attribute in edit.changes]
    kept = [answer for attribute in VALUES if attribute not in edit.changes for answer in right[attribute]]
    return {
        "success": sum(all(frame) for frame in zip(*changed)) / len(seen),
        "preservation": sum(kept) / len(kept),
        "psnr": min(psnr(edited, truth), PSNR_LIMIT),
        "psnr_object": min(masked_psnr(edited, truth, union), PSNR_LIMIT),
        "psnr_background": min(masked_psnr(edited, truth, 1 - union), PSNR_LIMIT),
        "flicker": flicker(edited, truth),
        "centroid_error": centroid_error(edited, truth, targets[0]),
    }


def centroid_error(edited: torch.Tensor, truth: torch.Tensor, target: Scene) -> float:
    """The mean distance in pixels between the object's centroids in two clips `f 3 h w` in 0..1. The colours of the
    `target` identify the object. `LOST` at most, and for frames without an object."""
    true_place, true_area = centroids(truth, target)
    place, area = centroids(edited, target)
    distance = (place - true_place).norm(dim=1).clamp(max=LOST)
    return float(torch.where(area >= LEAST_AREA * true_area, distance, LOST).mean())


def centroids(pictures: torch.Tensor, scene: Scene) -> tuple[torch.Tensor, torch.Tensor]:
    """The object in pictures `f 3 h w` in 0..1, identified by the scene's colours: centroids `f 2` (x, y) in pixels and
    areas `f` in pixels, zero if nothing is closer to the object's colour.

    A pixel's weight is how much closer it is to the object's colour than to the background's: 1 at the former, 0 from
    halfway on. Mixtures of the background's two tones count as background, so blurred edges of its pattern do too. Only
    the largest region counts, so spots of the colour elsewhere do not move the centroid.
    """
    weights = _largest_region(_object_weight(pictures, scene))
    area = weights.sum(dim=(1, 2))
    y, x = (torch.arange(size) + 0.5 for size in weights.shape[1:])
    moments = torch.stack([(weights.sum(dim=1) * x).sum(dim=1), (weights.sum(dim=2) * y).sum(dim=1)], dim=1)
    return moments / area.clamp(min=1e-6).unsqueeze(1), area


def _object_weight(pictures: torch.Tensor, scene: Scene) -> torch.Tensor:
    """Pictures `f 3 h w` -> the object's weight in each pixel, `f h w` in 0..1."""
    color = torch.tensor(COLORS[scene.color]).view(3, 1, 1) / 255
    ground = render([scene.edited(x=-SIZE)])[0].flatten(1)  # the object lies outside the picture
    brightness = ground.sum(dim=0)
    dark, light = (ground[:, place].view(3, 1, 1) for place in (brightness.argmin(), brightness.argmax()))
    step = light - dark
    along = ((pictures - dark) * step).sum(dim=1, keepdim=True) / step.square().sum().clamp(min=1e-6)
    to_background = (pictures - dark - along.clamp(0, 1) * step).square().sum(dim=1).sqrt()
    to_object = (pictures - color).square().sum(dim=1).sqrt()
    return (to_background - to_object).clamp(min=0) / (to_background + to_object).clamp(min=1e-6)


def _largest_region(weights: torch.Tensor) -> torch.Tensor:
    """Sets all but the connected region of the largest weight to zero, per picture; `f h w`."""
    kept = torch.zeros_like(weights)
    for picture, own in zip(weights, kept):
        labels, count = ndimage.label(picture.numpy() > 0, structure=np.ones((3, 3)))
        if count:
            sums = ndimage.sum_labels(picture.double().numpy(), labels, np.arange(1, count + 1))
            own.copy_(torch.where(torch.from_numpy(labels == 1 + sums.argmax()), picture, 0.0))
    return kept
