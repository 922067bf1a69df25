"""What EditBench measures of an edited clip, against the rendered right result."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from benchmarks.editbench.clips import VALUES, Clip, Edit
from ei2.measures import flicker, masked_psnr, psnr
from miniature.judge import Judge
from miniature.world import COLORS, SIZE, Scene, object_mask, render

SCORES = ("success", "preservation", "psnr", "psnr_object", "psnr_background", "flicker", "centroid_error")
PSNR_LIMIT = 100.0  # dB: what an exact result counts, because JSON has no infinity
LOST = SIZE / 2  # pixels: the centroid error of a frame in which no object is found, and the largest one
LEAST_AREA = 0.1  # of the true object's area: what a region needs to count as the object


def score(edited: torch.Tensor, clip: Clip, edit: Edit, judge: Judge) -> dict[str, float]:
    """The measures of an edited clip `f 3 128 128` in 0..1:

    * `success`: the share of frames in which the judge sees the target value of every changed attribute;
    * `preservation`: over frames and the attributes that should stay, the share that the judge sees unchanged;
    * `psnr`: in dB against the right result, all frames together, at most 100;
    * `psnr_object`: the same over the union of the source's and the target's object, `psnr_background`: elsewhere;
    * `flicker`: the mean absolute change of the error from frame to frame, see `ei2.measures.flicker`;
    * `centroid_error`: the mean distance in pixels between the object's centroid in the edit and in the right result,
      at most 64, and 64 where no object in the target's colour is found, see `centroids`.

    Raises ValueError if the edited clip has other frames or another size than the source.
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
    """The mean distance in pixels between the object's centroid in two clips `f 3 h w` in 0..1, found by the colours
    of one of the target's scenes; `LOST` at most, and for frames in which the object is missing."""
    true_place, true_area = centroids(truth, target)
    place, area = centroids(edited, target)
    distance = (place - true_place).norm(dim=1).clamp(max=LOST)
    return float(torch.where(area >= LEAST_AREA * true_area, distance, LOST).mean())


def centroids(pictures: torch.Tensor, scene: Scene) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the object lies in pictures `f 3 h w` in 0..1, told by the colours the scene names: the centroids `f 2`
    (x, y) in pixels and the areas `f` in pixels, zero where nothing is nearer the object's colour.

    Each pixel is weighted by how much nearer it is to the object's colour than to the background's: 1 at the former,
    0 from halfway on. The background is all mixtures of its two tones, so that blurred edges of its pattern count as
    background. Only the region of the largest area counts; spots of the colour elsewhere do not pull the centroid.
    """
    weights = _largest_region(_object_weight(pictures, scene))
    area = weights.sum(dim=(1, 2))
    y = torch.arange(weights.shape[1]) + 0.5
    x = torch.arange(weights.shape[2]) + 0.5
    moments = torch.stack([(weights.sum(dim=1) * x).sum(dim=1), (weights.sum(dim=2) * y).sum(dim=1)], dim=1)
    return moments / area.clamp(min=1e-6).unsqueeze(1), area


def _object_weight(pictures: torch.Tensor, scene: Scene) -> torch.Tensor:
    """Pictures `f 3 h w` -> the object's weight in each pixel, `f h w` in 0..1."""
    color = torch.tensor(COLORS[scene.color]).view(3, 1, 1) / 255
    dark, light = _background_tones(scene)
    step = light - dark
    along = ((pictures - dark) * step).sum(dim=1, keepdim=True) / step.square().sum().clamp(min=1e-6)
    to_background = (pictures - dark - along.clamp(0, 1) * step).square().sum(dim=1).sqrt()
    to_object = (pictures - color).square().sum(dim=1).sqrt()
    return (to_background - to_object).clamp(min=0) / (to_background + to_object).clamp(min=1e-6)


def _background_tones(scene: Scene) -> tuple[torch.Tensor, torch.Tensor]:
    """The darkest and the lightest colour of the scene's background, `3 1 1` each; the same for plain ones."""
    ground = render([scene.edited(x=-SIZE)])[0].flatten(1)  # the object lies outside the picture
    brightness = ground.sum(dim=0)
    return ground[:, brightness.argmin()].view(3, 1, 1), ground[:, brightness.argmax()].view(3, 1, 1)


def _largest_region(weights: torch.Tensor) -> torch.Tensor:
    """Sets all but the connected region of the largest weight to zero, per picture; `f h w`."""
    inside = weights > 0
    number = torch.arange(1, weights[0].numel() + 1, dtype=torch.float32).view(1, *weights.shape[1:])
    labels = number * inside
    while True:  # each pixel takes the largest number of its neighbours, until every region has one
        spread = F.max_pool2d(labels.unsqueeze(1), 3, stride=1, padding=1).squeeze(1) * inside
        if torch.equal(spread, labels):
            break
        labels = spread
    labels = labels.long()
    sums = torch.zeros(len(weights), weights[0].numel() + 1).scatter_add_(1, labels.flatten(1), weights.flatten(1))
    best = sums[:, 1:].argmax(dim=1) + 1
    return weights * (labels == best.view(-1, 1, 1))
