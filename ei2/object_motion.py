"""How an object moves through a clip: the shift, turn and change of size between frames.

Direct alignment (Lucas and Kanade, 1981) of the pictures where the object is: Gauss-Newton steps with robust weights, from
coarse to fine (Baker and Matthews, IJCV 2004). Neighbours are aligned first; chaining them gives the start for the alignment
with the reference frame itself, so errors do not add up.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from .warp import blurred, gradients, pixels, seen_at

LEVELS, LAST_LEVELS = (8, 4, 2, 1), (2, 1)  # by how much pictures are shrunk, for neighbours and for the last alignment
STEPS = 15  # per level
OUTLIER = 0.05  # difference of colours, in 0..1, from which a pixel counts less
MARGIN = 0.04  # of the picture's shorter side: how far around the object pictures are compared, for its outline
MOST_GROWTH = 0.7  # natural logarithm of the change of size between two frames
LARGEST = 256  # pixels: larger pictures are shrunk to this longer side


def object_motion(
    frames: torch.Tensor, masks: torch.Tensor, reference: int, on_frame: Callable[[], None] = lambda: None
) -> torch.Tensor:
    """Where the object's points are in the frame `reference`: matrices `f 3 3` that map (x, y, 1), in pixels.

    `frames`: `f 3 h w` in 0..1; `masks`: `f 1 h w` in 0..1, roughly where the object is. `on_frame()` is called after each
    frame.
    """
    shrink = min(1.0, LARGEST / max(frames.shape[2:]))
    size = [round(edge * shrink) for edge in frames.shape[2:]]
    frames, masks = (F.interpolate(x.float(), size, mode="area") for x in (frames, masks))
    margin = max(1, round(MARGIN * min(size)))
    around = blurred(F.max_pool2d(masks, 2 * margin + 1, 1, margin), margin / 2)
    centres = [_centroid(mask) for mask in around]
    matrices = {reference: torch.eye(3, dtype=torch.float64)}
    for i in [*range(reference + 1, len(frames)), *range(reference - 1, -1, -1)]:
        near = i - 1 if i > reference else i + 1
        one, there, here = frames[i : i + 1], around[i : i + 1], centres[i]
        start = torch.cat([centres[near] - here, torch.zeros(2, dtype=torch.float64)])
        step = _matrix(align(one, frames[near : near + 1], there, start, here, LEVELS), here)
        start = _parameters(matrices[near] @ step, here)
        close = align(one, frames[reference : reference + 1], there, start, here, LAST_LEVELS)
        matrices[i] = _matrix(close, here)
        on_frame()
    scale = torch.tensor(
        [size[1] / round(size[1] / shrink), size[0] / round(size[0] / shrink), 1.0], dtype=torch.float64
    )
    to_small = torch.diag(scale)
    to_small[:2, 2] = (scale[:2] - 1) / 2  # centres of pixels, not their corners, are at whole numbers
    return torch.stack([to_small.inverse() @ matrices[i] @ to_small for i in range(len(frames))]).float()


def moved(matrix: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Where a matrix `3 3` takes the pixels of a picture, `1 2 h w`."""
    grid = pixels(height, width, matrix)
    return (torch.einsum("ij,jhw->ihw", matrix[:2, :2], grid) + matrix[:2, 2].view(2, 1, 1)).unsqueeze(0)


def align(
    picture: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    start: torch.Tensor,
    centre: torch.Tensor,
    levels: tuple[int, ...],
) -> torch.Tensor:
    """Parameters (x, y, logarithm of the size, angle) of the motion around `centre` by which `picture` `1 c h w` best
    equals `target`, where `weight` `1 1 h w` is. `start`: an estimate."""
    best = start.clone()
    for level in levels:
        size = [max(1, edge // level) for edge in picture.shape[2:]]
        a, b, w = (F.interpolate(x, size, mode="area") if level > 1 else x for x in (picture, target, weight))
        a, b = blurred(a, 1.0), blurred(b, 1.0)
        slopes, grid, middle = gradients(b), pixels(*size, a).double(), (centre + 0.5) / level - 0.5
        parameters = best * torch.tensor([1 / level, 1 / level, 1, 1], dtype=torch.float64)
        lowest = None
        for _ in range(STEPS):
            places, changes = _moved(parameters, grid, middle)
            shown, right, down = (seen_at(x, places.float().unsqueeze(0))[0] for x in (b, *slopes))
            error = shown - a[0]
            distance = (error.square().sum(0, keepdim=True) + OUTLIER**2).sqrt()
            cost = (w[0] * distance).sum().item()
            if lowest is None or cost < lowest:
                lowest, best = cost, parameters.clone()
            jacobian = (right * changes[:, :1] + down * changes[:, 1:]).double()  # 4 c h w
            weighted = jacobian * (w[0] / distance)
            normal = torch.einsum("ichw,jchw->ij", weighted, jacobian)
            slope = torch.einsum("ichw,chw->i", weighted, error.double())
            damping = torch.diag(1e-2 * normal.diagonal() + 1e-6)
            parameters = parameters - torch.linalg.solve(normal + damping, slope)
            parameters[2] = parameters[2].clamp(-MOST_GROWTH, MOST_GROWTH)
        best = best * torch.tensor([level, level, 1, 1], dtype=torch.float64)
    return best


def _moved(parameters: torch.Tensor, grid: torch.Tensor, centre: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The places `2 h w` after the motion, and their derivatives by the parameters, `4 2 h w`."""
    (x, y, growth, angle), size = parameters, parameters[2].exp()
    across, down = grid - centre.view(2, 1, 1)
    turned = size * torch.stack([angle.cos() * across - angle.sin() * down, angle.sin() * across + angle.cos() * down])
    one, zero = torch.ones_like(across), torch.zeros_like(across)
    around = torch.stack([-turned[1], turned[0]])
    changes = torch.stack([torch.stack([one, zero]), torch.stack([zero, one]), turned, around])
    return turned + (centre + torch.stack([x, y])).view(2, 1, 1), changes


def _matrix(parameters: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
    """The motion as a matrix `3 3`."""
    _, _, growth, angle = parameters
    cos, sin = growth.exp() * angle.cos(), growth.exp() * angle.sin()
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[:2, :2] = torch.stack([torch.stack([cos, -sin]), torch.stack([sin, cos])])
    matrix[:2, 2] = centre + parameters[:2] - matrix[:2, :2] @ centre
    return matrix


def _parameters(matrix: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
    """The parameters of such a matrix."""
    shift = matrix[:2, :2] @ centre + matrix[:2, 2] - centre
    growth, angle = matrix[:2, 0].norm().log(), torch.atan2(matrix[1, 0], matrix[0, 0])
    return torch.cat([shift, torch.stack([growth, angle])])


def _centroid(mask: torch.Tensor) -> torch.Tensor:
    """The middle (x, y) of a mask `1 h w`, in pixels; of the picture, if the mask is empty."""
    mask = mask + 1e-6
    return ((pixels(*mask.shape[1:], mask) * mask).sum(dim=(1, 2)) / mask.sum()).double()
