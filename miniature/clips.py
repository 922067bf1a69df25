"""Clips of the miniature's world as files: one view per frame, so the correct result of every edit is known.

    python -m miniature.clips

writes the clip that the bundled workflows edit, `assets/red_car.mp4`, how near its pixels are, `red_car_depth.mp4`, one
of its frames with another thing, `red_car_key_frame.png`, and the clip of earlier workflows, `quickstart.mp4`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import torch
from PIL import Image

from .motion import Clip, Point, along, edited, panning, still, turning
from .scene import Actor, View, object_mask, prompt, render, shape_view
from .things import THINGS

CLIP_FILE = Path(__file__).parent.parent / "assets" / "red_car.mp4"
DEPTH_FILE = CLIP_FILE.with_name("red_car_depth.mp4")
KEY_FRAME_FILE = CLIP_FILE.with_name("red_car_key_frame.png")
SQUARE_FILE = CLIP_FILE.with_name("quickstart.mp4")
KEY_FRAME = 6
FAR, NEAR = 0.2, 0.85  # grey of the background and of the object in it
FPS, FRAMES = 8, 12
SOURCE = View((Actor("car", "red", radius=30.0, mirrored=True),), "city street")
EDITS = {  # by workflow, what it changes in the clip
    "quickstart": {"kind": "tractor"},
    "quickstart_full": {"kind": "tractor"},
    "ei2_control_blend": {"color": "blue"},
    "masked_edit": {"kind": "turtle"},
    "key_frame": {"kind": "elephant"},
    "long_clip": {"place": "desert"},
    "load_and_edit": {"look": "night"},
    "compare_tune_a_video": {"kind": "tractor"},
    "vid2vid_zero": {"color": "yellow"},
    "video_p2p": {"color": "green"},
}


def moving(
    view: View, frames: int, path: Sequence[Point], turn: float = 0.0, drift: tuple[float, float] = (0.0, 0.0)
) -> Clip:
    """The view in motion. `path`: the four control points of the curve that its first thing follows, in pixels; `turn`:
    how far it turns, in radians; `drift`: how far the nearest layer of the background moves, in pixels. Raises
    ValueError for a path of another length."""
    return panning(turning(along(still(view, frames), path), turn), -drift[0], -drift[1])


def changed(clip: Sequence[View], **changes) -> Clip:
    """The correct result of an edit: the same motion, with other attributes of the views or of their first object. A
    new thing keeps the old one's colour if it comes in colours."""
    of_views = {name: value for name, value in changes.items() if name in View.__dataclass_fields__}
    of_actor = {name: value for name, value in changes.items() if name not in of_views}
    if (kind := of_actor.get("kind")) in THINGS and not THINGS[kind].colors:
        of_actor["color"] = None
    return edited(edited(clip, **of_views), 0, **of_actor)


def bundled_clip() -> Clip:
    """The clip of the bundled workflows: a car drives along a street, and the camera follows it."""
    path = [(46.0, 90.0), (58.0, 82.0), (70.0, 92.0), (82.0, 86.0)]
    return moving(SOURCE, FRAMES, path, drift=(-40.0, 0.0))


def bundled_truth(workflow: str = "quickstart") -> Clip:
    """The correct result of a bundled workflow's edit."""
    return changed(bundled_clip(), **EDITS[workflow])


def source_prompt() -> str:
    """The source prompt of the bundled workflows."""
    return prompt(SOURCE)


def target_prompt(workflow: str = "quickstart") -> str:
    """A bundled workflow's edit prompt."""
    return prompt(bundled_truth(workflow)[0])


def bundled_depth() -> torch.Tensor:
    """How near the clip's pixels are, `f 3 h w`, grey as depth estimators paint it."""
    return (FAR + (NEAR - FAR) * object_mask(bundled_clip())).expand(-1, 3, -1, -1)


def bundled_key_frame() -> torch.Tensor:
    """One frame of the clip with another thing in the same pose, as a person might draw it, `3 h w`."""
    return render(bundled_truth("key_frame")[KEY_FRAME : KEY_FRAME + 1])[0]


def square_clip() -> Clip:
    """A shape that crosses the picture on an arc and turns by a right angle, while the background drifts: harder to
    follow than things, because those stand upright."""
    square = shape_view("square", "blue", "dotted", "white", radius=34.0, angle=0.3)
    path = [(42.0, 80.0), (46.0, 22.0), (84.0, 30.0), (86.0, 84.0)]
    return moving(square, FRAMES, path, turn=0.5 * math.pi, drift=(-12.0, 6.0))


def write_clip(clip: Sequence[View], path: Path, fps: int) -> None:
    """Renders the views and writes them as H.264, one picture per view."""
    write_video(render(clip), path, fps)


def write_video(pictures: torch.Tensor, path: Path, fps: int, crf: float = 8) -> None:
    """Writes pictures `f 3 h w` in 0..1 as H.264 in an MP4 (yuv420p, tagged BT.709, so players show the intended
    colours). Raises ValueError for odd sizes, which yuv420p cannot hold."""
    height, width = pictures.shape[-2:]
    if height % 2 or width % 2:
        raise ValueError(f"H.264 needs even sizes, but the pictures are {width} x {height}: crop them by one pixel.")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = (pictures.clamp(0, 1) * 255).round().byte().movedim(1, -1).contiguous().numpy()
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options={"crf": str(crf), "preset": "veryslow"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
        context.color_range = 1  # 16..235
        for picture in raw:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame = frame.reformat(
                format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG", interpolation="AREA"
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def read_video(path: Path) -> torch.Tensor:
    """The pictures of a video file, `f 3 h w` in 0..1."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return torch.stack([torch.from_numpy(frame) for frame in frames]).movedim(-1, 1) / 255


def main() -> None:
    clip = bundled_clip()
    write_clip(clip, CLIP_FILE, FPS)
    write_video(bundled_depth(), DEPTH_FILE, FPS)
    pixels = (bundled_key_frame() * 255).round().byte().movedim(0, -1).numpy()
    Image.fromarray(pixels).save(KEY_FRAME_FILE, optimize=True)
    write_clip(square_clip(), SQUARE_FILE, FPS)
    error = read_video(CLIP_FILE) - render(clip)
    print(
        f"{CLIP_FILE}: {len(clip)} frames, {CLIP_FILE.stat().st_size / 1000:.1f} kB, "
        f"{-10 * error.square().mean().log10().item():.1f} dB to the renders"
    )
    print(f"source: {source_prompt()}")
    for workflow in EDITS:
        print(f"{workflow}: {target_prompt(workflow)}")


if __name__ == "__main__":
    main()
