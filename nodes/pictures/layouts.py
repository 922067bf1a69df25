"""Several videos in one picture: side by side, in a grid, as a wipe from one to the next, and as a contact sheet.

Videos are `f h w 3` in 0..1, all of one size and number of frames; every video has a label, which may be empty.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from PIL import ImageColor

from ...ei2.wording import plural
from .attention_maps import chosen_frames
from .labels import MARGIN, blank, block, strip, text_width
from .plots import ACCENT

LARGEST_CELL = 256  # pixels, the longer side of a contact sheet's picture
SMALLEST_LETTERS = 7  # pixels; labels above small videos shrink down to it before they are cut
LINE = torch.tensor(ImageColor.getrgb(ACCENT)) / 255  # the wipe's moving line
Step = Callable[[], object]


def side_by_side(videos: list[torch.Tensor], labels: list[str], on_frame: Step = lambda: None) -> torch.Tensor:
    """All in one row, each under its label."""
    return _tiled(videos, labels, len(videos), on_frame)


def grid(videos: list[torch.Tensor], labels: list[str], on_frame: Step = lambda: None) -> torch.Tensor:
    """About as many rows as columns, in reading order."""
    return _tiled(videos, labels, math.ceil(math.sqrt(len(videos))), on_frame)


def wipe(videos: list[torch.Tensor], labels: list[str], on_frame: Step = lambda: None) -> torch.Tensor:
    """One picture in which, over the clip, each video is uncovered over the previous one, from the left, at an even
    pace. The strip names the videos left and right of the line. Raises `ValueError` like `check_wipe`."""
    check_wipe(len(videos), len(videos[0]))
    frames, height, width, _ = videos[0].shape
    bar = _bar(height) if any(labels) else 0
    letters = _letters(bar, labels, width // 2 - MARGIN)  # two of them share the strip
    canvas = _canvas(frames, bar + height, width)
    line = max(1, width // 200)
    for i in range(frames):
        on_frame()
        place = (len(videos) - 1) * (i / (frames - 1) if frames > 1 else 0.5)
        old = min(int(place), len(videos) - 2)
        border = round((place - old) * width)
        canvas[i, bar : bar + height, :width] = videos[old][i]
        canvas[i, bar : bar + height, :border] = videos[old + 1][i, :, :border]
        if 0 < border < width:
            canvas[i, bar : bar + height, max(0, border - line) : border + line] = LINE
        if bar:
            names = {"left": labels[old + 1] if border > 0 else "", "right": labels[old] if border < width else ""}
            canvas[i, :bar, :width] = strip(bar, width, letters, **names)
    return canvas


def check_wipe(videos: int, frames: int) -> None:
    """Raises `ValueError` for fewer than two videos, and for more videos than frames; one frame shows half of both."""
    if videos < 2:
        raise ValueError("A wipe goes from one video to another: connect at least two, or choose another layout.")
    if frames < videos and (videos, frames) != (2, 1):
        raise ValueError(
            f"A wipe shows one video after another, but {videos} videos have only {plural(frames, 'frame')}: choose "
            "another layout."
        )


def contact_sheet(videos: list[torch.Tensor], labels: list[str]) -> torch.Tensor:
    """A row per video with its label on the left, a column per frame (evenly spaced ones if there are many): `1 h w 3`.

    Pictures above 256 pixels are scaled down, so a sheet stays small enough to view and share.
    """
    frames = chosen_frames(len(videos[0]))
    videos = [fitted(video[frames], *_cell_size(video)) for video in videos]
    _, height, width, _ = videos[0].shape
    size, gap = max(13, height // 8), _gap(width)  # larger than in a video: a sheet is viewed at a smaller scale
    bar = round(1.5 * size)
    margin = min(max(text_width(label, size) for label in labels), max(width, 96))
    sheet = blank(bar + len(videos) * (height + gap), margin + len(frames) * (width + gap))[0]
    for column, frame in enumerate(frames):
        left = margin + column * (width + gap)
        sheet[:bar, left : left + width] = strip(bar, width, size, middle=str(frame))
    for row, (video, label) in enumerate(zip(videos, labels)):
        top = bar + row * (height + gap)
        sheet[top : top + height, :margin] = block(height, margin, size, label)
        for column, picture in enumerate(video):
            left = margin + column * (width + gap)
            sheet[top : top + height, left : left + width] = picture
    return sheet.unsqueeze(0)


def fitted(video: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """`f h w c` -> `f height width 3`: scaled to fit, and centred on a dark background if its shape differs.

    A grey video becomes RGB, and transparency is removed.
    """
    video = video[..., :3].float().cpu()
    video = video.expand(*video.shape[:3], 3)
    old_height, old_width = video.shape[1:3]
    if (old_height, old_width) == (height, width):
        return video
    scale = min(height / old_height, width / old_width)
    inner = max(1, round(old_height * scale)), max(1, round(old_width * scale))
    pictures = F.interpolate(video.movedim(-1, 1), inner, mode="bicubic", antialias=True, align_corners=False)
    out = blank(height, width, len(video))
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    out[:, top : top + inner[0], left : left + inner[1]] = pictures.clamp(0, 1).movedim(1, -1)
    return out


def _tiled(videos: list[torch.Tensor], labels: list[str], columns: int, on_frame: Step) -> torch.Tensor:
    frames, height, width, _ = videos[0].shape
    gap, bar = _gap(width), _bar(height) if any(labels) else 0
    rows = math.ceil(len(videos) / columns)
    letters = _letters(bar, labels, width - 2 * MARGIN)
    canvas = _canvas(frames, rows * (bar + height + gap) - gap, columns * (width + gap) - gap)
    for i, (video, label) in enumerate(zip(videos, labels)):
        top, left = i // columns * (bar + height + gap), i % columns * (width + gap)
        if bar:
            canvas[:, top : top + bar, left : left + width] = strip(bar, width, letters, middle=label)
        for frame in range(frames):
            on_frame()
            canvas[frame, top + bar : top + bar + height, left : left + width] = video[frame]
    return canvas


def _canvas(frames: int, height: int, width: int) -> torch.Tensor:
    """Even sizes, which the usual video codecs need."""
    return blank(height + height % 2, width + width % 2, frames)


def _bar(height: int) -> int:
    """The height of a label's strip in pixels."""
    return max(20, round(0.07 * height))


def _letters(bar: int, labels: list[str], room: float) -> int:
    """The font size of the labels in pixels: one size for all, such that the longest fits into `room` pixels."""
    size = round(0.66 * bar)
    fits = lambda size: all(text_width(label, size) - 2 * MARGIN <= room for label in labels)
    return next(
        (letters for letters in range(size, SMALLEST_LETTERS, -1) if fits(letters)), min(size, SMALLEST_LETTERS)
    )


def _gap(width: int) -> int:
    return max(2, width // 64)


def _cell_size(video: torch.Tensor) -> tuple[int, int]:
    height, width = video.shape[1:3]
    scale = min(1.0, LARGEST_CELL / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))
