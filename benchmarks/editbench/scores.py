"""The scores of an edited clip against the rendered correct result."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from ei2.measures import PSNR_LIMIT, flicker, masked_psnr, psnr
from miniature.judge import Judge, answers, right
from miniature.scene import object_mask, render
from miniature.world import SIZE

from .agreement import agreement, centroid_error, visible
from .clips import OBJECT, Clip, Edit

LOST = SIZE / 2  # pixels: the largest centroid error, also that of a frame without an object


def score(edited: torch.Tensor, clip: Clip, edit: Edit, judge: Judge) -> dict[str, float]:
    """The measures of an edited clip `f 3 128 128` in 0..1:

    * `success`: the share of frames in which the judge sees the target value of everything that the edit changes; NaN
      where it cannot (it has no word for the colour of one of two things);
    * `preservation`: the share of the other attributes, over frames, that the judge sees unchanged;
    * `agreement`: how well the object's form agrees from frame to frame, see `agreement.agreement`;
    * `psnr`: in dB against the correct result, over all frames, at most 100;
    * `psnr_object`: the same over the union of the source's and the target's object, `psnr_background`: elsewhere;
    * `flicker`: the mean absolute change of the error from frame to frame, see `ei2.measures.flicker`;
    * `centroid_error`: see `agreement.centroid_error`.

    The judge is asked about frames that show at least half of the object. Where the prompts leave more than one correct
    picture (`Edit.one_answer`), only success, preservation and `psnr_object` (there: of the target's object alone) are
    numbers; the others are NaN. So are `agreement` and `centroid_error` where more than the object changes: they find
    the object by its difference from the correct background.
    Raises ValueError if the edited clip differs from the source in its frames or size.
    """
    shape = (len(clip.views), 3, SIZE, SIZE)
    if tuple(edited.shape) != shape:
        raise ValueError(f"An edit of the clip {clip.name} should be {shape}, but is {tuple(edited.shape)}.")
    edited, views = edited.float().cpu().clamp(0, 1), edit.views
    truth = render(views)
    union = object_mask(views)
    if edit.one_answer:
        union = torch.maximum(union, object_mask(clip.views)).clamp(0, 1)
    of_object = edit.changes.keys() <= OBJECT
    scores = judged(edited, clip, edit, judge) | {"psnr_object": min(masked_psnr(edited, truth, union), PSNR_LIMIT)}
    pictures = {
        "agreement": lambda: agreement(edited, views) if of_object else math.nan,
        "psnr": lambda: min(psnr(edited, truth), PSNR_LIMIT),
        "psnr_background": lambda: min(masked_psnr(edited, truth, 1 - union), PSNR_LIMIT),
        "flicker": lambda: flicker(edited, truth),
        "centroid_error": lambda: centroid_error(edited, views, LOST) if of_object else math.nan,
    }
    return scores | {name: measure() if edit.one_answer else math.nan for name, measure in pictures.items()}


def judged(
    edited: torch.Tensor, clip: Clip, edit: Edit, judge: Judge, frames: Iterable[int] | None = None
) -> dict[str, float]:
    """`success` and `preservation`, see `score`. `frames`: the numbers of those to judge, default all."""
    shown = visible(edit.views)
    numbers = [i for i in (range(len(edited)) if frames is None else frames) if shown[i]]
    before, after = answers([clip.views[i] for i in numbers]), answers([edit.views[i] for i in numbers])
    success, kept = [], []
    for old, new, found in zip(before, after, right(judge, edited[numbers], after)):
        changed = {_question(name, new) for name in new if name not in old or new[name] != old[name]}
        success += [all(found[question] for question in changed)] if changed else []
        kept += [is_right for question, is_right in found.items() if question not in changed]
    share = sum(success) / len(success) if success else math.nan
    return {"success": share, "preservation": sum(kept) / len(kept)}


def _question(name: str, answer: dict) -> str:
    """The judge's name for a question: two things are asked about as a pair."""
    return "pair" if name == "thing" and not isinstance(answer["thing"], str) else name
