"""How an object moves through a clip: where its points in each frame are in one other frame, as affine maps.

Direct alignment (Lucas and Kanade, IJCAI 1981) of the pictures where the object is: Gauss-Newton steps with robust
weights, from coarse to fine (Baker and Matthews, IJCV 2004). Each frame is first aligned with its neighbour. The
neighbour's own map then gives the start for the alignment with the reference frame, so errors do not add up. Pixels
that move with the camera rather than with the object get little weight.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from .warp import blurred, gradients, grown, moved, pixels, resizing, seen_at, shrinking

LEVELS, LAST_LEVELS = (8, 4, 2, 1), (2, 1)  # by how much pictures are shrunk, for neighbours and for the last alignment
STEPS, STILL = 15, 0.02  # most steps per level; a step that moves nothing farther, in pixels, is the last
OUTLIER = 0.05  # difference of colours, in 0..1, from which a pixel counts less
FIRM = 0.01  # change of colours per pixel below which turns, sizes and skews stay as at the start: a disc does not turn
MARGIN = 0.04  # of the picture's shorter side: how far around the object pictures are compared, for its outline
LARGEST = 256  # pixels: larger pictures are shrunk to this longer side
NOISE, NEAR = 0.02, 1.5  # differences of colours that say nothing, in 0..1; pixels over which they are averaged
BACKGROUND = 0.05  # weight of pixels that may well move with the camera
ALIKE = 0.15  # difference of colours, in 0..1, below which pixels are alike
LOST = 0.3  # share of the region whose pixels are alike, below which the object was not found


def object_motion(
    frames: torch.Tensor, masks: torch.Tensor, reference: int, on_frame: Callable[[], None] = lambda: None
) -> torch.Tensor:
    """Where the object's points are in the frame `reference`: matrices `f 3 3` that map (x, y, 1), in pixels.

    `frames`: `f 3 h w` in 0..1; `masks`: `f 1 h w` in 0..1, roughly where the object is. `on_frame` is called after
    each frame.
    """
    size, to_small = shrinking(*frames.shape[2:], LARGEST)
    frames, masks = (F.interpolate(x.float(), size, mode="area") for x in (frames, masks))
    margin = max(1, round(MARGIN * min(size)))
    around = blurred(grown(masks, margin), margin / 2)
    centres = [_centroid(mask) for mask in around]
    still = torch.eye(3, dtype=torch.float64)
    matrices, camera = {reference: still}, {reference: still}
    for sweep in (range(reference + 1, len(frames)), range(reference - 1, -1, -1)):
        near = reference
        for i in sweep:
            frame, mask, there, centre = frames[i : i + 1], masks[i : i + 1], around[i : i + 1], centres[i]
            neighbour, target = frames[near : near + 1], frames[reference : reference + 1]
            start = still.clone()
            start[:2, 2] = centres[near] - centre
            pan = align(frame, neighbour, 1 - there, still, centre, LEVELS)
            unlike = _error(frame, neighbour, pan)
            moves = BACKGROUND + unlike / (unlike + NOISE**2)
            start = matrices[near] @ align(frame, neighbour, there * moves, start, centre, LEVELS)
            camera[i] = camera[near] @ pan
            behind, before = _error(frame, target, camera[i]), _error(frame, target, start)
            moves = (behind + NOISE**2) / (behind + before + 2 * NOISE**2)
            matrices[i] = align(frame, target, there * moves, start, centre, LAST_LEVELS)
            alike = _error(frame, target, matrices[i]) < ALIKE**2
            if (mask * alike).sum() > LOST * mask.sum():  # what hides the object now may let it go again
                near = i
            on_frame()
    return torch.stack([to_small.inverse() @ matrices[i] @ to_small for i in range(len(frames))]).float()


def align(
    picture: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    start: torch.Tensor,
    centre: torch.Tensor,
    levels: tuple[int, ...],
) -> torch.Tensor:
    """The affine map `3 3` by which `target` `1 c h w`, seen at the mapped places, best equals `picture`, where
    `weight` `1 1 h w` is. `start`: an estimate; `centre`: the point (x, y) around which the picture turns."""
    best = start
    for level in levels:
        size = [max(1, edge // level) for edge in picture.shape[2:]]
        a, b, w = (F.interpolate(x, size, mode="area") if level > 1 else x for x in (picture, target, weight))
        a, b = blurred(a, 1.0), blurred(b, 1.0)
        target_and_slopes = torch.cat([b, *gradients(b)], dim=1)
        to_level = resizing(size[1] / picture.shape[3], size[0] / picture.shape[2])
        middle = to_level[:2, :2] @ centre + to_level[:2, 2]
        rows, columns = _bounds(w[0, 0])
        a, w = (x[..., rows, columns] for x in (a, w))
        around = (pixels(*size, a).double() - middle.view(2, 1, 1))[:, rows, columns]
        reach = (w[0] * around.square().sum(dim=0)).sum() / w.sum().clamp(min=1e-6)  # mean squared distance
        matrix = first = to_level @ best @ to_level.inverse()
        lowest = None
        for _ in range(STEPS):
            seen = seen_at(target_and_slopes, moved(matrix, *size).float()[..., rows, columns])
            shown, right, down = seen[0].double().chunk(3)
            error = shown - a[0]
            distance = (error.square().sum(dim=0, keepdim=True) + OUTLIER**2).sqrt()
            cost = (w[0] * distance).sum().item()
            if lowest is None or cost < lowest:
                lowest, best = cost, matrix
            share = w[0] / distance
            jacobian = torch.stack(
                [right * around[0], right * around[1], right, down * around[0], down * around[1], down]
            )
            normal = torch.einsum("ichw,jchw->ij", jacobian * share, jacobian)
            slope = torch.einsum("ichw,chw->i", jacobian * share, error)
            firm = (FIRM * level) ** 2 * reach * share.sum() * torch.tensor([1.0, 1, 0, 1, 1, 0]).double()
            change = firm * (matrix - first)[:2].flatten()
            damped = normal + torch.diag(firm + 1e-2 * normal.diagonal() + 1e-6)
            step = torch.zeros(3, 3, dtype=torch.float64)
            step[:2] = -torch.linalg.solve(damped, slope + change).view(2, 3)
            step[:2, 2] -= step[:2, :2] @ middle
            matrix = matrix + step
            if moved(step, *size)[0, :, rows, columns].square().sum(dim=0).mul(w[0, 0]).max() < STILL**2:
                break
        best = to_level.inverse() @ best @ to_level
    return best


def _error(frame: torch.Tensor, target: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """The squared difference of the frame from the target at the mapped places, `1 1 h w`."""
    seen = seen_at(target, moved(matrix, *frame.shape[2:]).float())
    return blurred(seen - frame, NEAR).square().sum(dim=1, keepdim=True)


def _bounds(weight: torch.Tensor) -> tuple[slice, slice]:
    """The rows and columns of a picture `h w` outside which all weights are 0; all, if there is no other."""
    found = [(weight.amax(dim=axis) > 0).nonzero().flatten() for axis in (1, 0)]
    return tuple(slice(int(x[0]), int(x[-1]) + 1) if len(x) else slice(None) for x in found)


def _centroid(mask: torch.Tensor) -> torch.Tensor:
    """The middle (x, y) of a mask `1 h w`, in pixels; of the picture, if the mask is empty."""
    mask = mask + 1e-6
    return ((pixels(*mask.shape[1:], mask) * mask).sum(dim=(1, 2)) / mask.sum()).double()
