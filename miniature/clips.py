"""Clips of the miniature's world: one scene per frame, so the correct result of every edit is known.

    python -m miniature.clips

writes the clip the quick start edits, `assets/quickstart.mp4`, how near its pixels are, `quickstart_depth.mp4`, and one
of its frames with another object, `quickstart_key_frame.png`.
"""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import av
import torch
from PIL import Image

from .world import PERIOD, Scene, object_mask, prompt, render

QUICKSTART_FILE = Path(__file__).parent.parent / "assets" / "quickstart.mp4"
DEPTH_FILE = QUICKSTART_FILE.with_name("quickstart_depth.mp4")
KEY_FRAME_FILE = QUICKSTART_FILE.with_name("quickstart_key_frame.png")
KEY_FRAME, KEY_FRAME_TARGET = 6, {"shape": "star", "color": "orange"}
FAR, NEAR = 0.2, 0.85  # grey of the background and of the object in it
QUICKSTART_FPS = 8
QUICKSTART_FRAMES = 12
QUICKSTART_SOURCE = Scene(shape="square", color="blue", pattern="dotted", background="white", radius=34.0, angle=0.3)
QUICKSTART_TARGET = {"shape": "circle", "color": "red"}
QUICKSTART_SOURCE_PROMPT = prompt(QUICKSTART_SOURCE)
QUICKSTART_TARGET_PROMPT = prompt(QUICKSTART_SOURCE.edited(**QUICKSTART_TARGET))


def moving(
    scene: Scene,
    frames: int,
    path: list[tuple[float, float]],
    turn: float = 0.0,
    drift: tuple[float, float] = (0.0, 0.0),
) -> list[Scene]:
    """The scene in motion, one `Scene` per frame.

    `path`: the four control points of the Bézier curve the object's centre follows, in pixels; `turn`: how far the
    object turns over the whole clip, in radians; `drift`: how far the background pattern moves, in pixels. The object
    starts and stops gently; the background moves evenly. Raises ValueError for a path of another length.
    """
    if len(path) != 4:
        raise ValueError(f"The object's path needs 4 control points (x, y), but got {len(path)}.")
    scenes = []
    for i in range(frames):
        even = i / max(frames - 1, 1)
        s = 0.5 * even + 0.25 * (1 - math.cos(math.pi * even))
        weights = ((1 - s) ** 3, 3 * s * (1 - s) ** 2, 3 * s * s * (1 - s), s**3)
        x, y = (sum(w * point[axis] for w, point in zip(weights, path)) for axis in (0, 1))
        # a pattern that moves to the right has an offset that shrinks: see `world.render`
        scenes.append(
            scene.edited(
                x=x,
                y=y,
                angle=scene.angle + turn * s,
                offset_x=(scene.offset_x - drift[0] * even) % PERIOD,
                offset_y=(scene.offset_y - drift[1] * even) % PERIOD,
            )
        )
    return scenes


def edited(scenes: list[Scene], **attributes) -> list[Scene]:
    """The same motion with other attributes in every frame: the correct result of an edit."""
    return [scene.edited(**attributes) for scene in scenes]


def quickstart_clip() -> list[Scene]:
    """The clip of the quick start: the object crosses the picture on an arc and turns, the background drifts."""
    path = [(42.0, 80.0), (46.0, 22.0), (84.0, 30.0), (86.0, 84.0)]
    return moving(QUICKSTART_SOURCE, QUICKSTART_FRAMES, path, turn=0.5 * math.pi, drift=(-12.0, 6.0))


def quickstart_truth() -> list[Scene]:
    """The correct result of the quick start's edit: the same clip with the target's shape and colour."""
    return edited(quickstart_clip(), **QUICKSTART_TARGET)


def quickstart_depth() -> torch.Tensor:
    """How near the clip's pixels are, `f 3 h w`, grey as depth estimators paint it."""
    return (FAR + (NEAR - FAR) * object_mask(quickstart_clip())).expand(-1, 3, -1, -1)


def quickstart_key_frame() -> torch.Tensor:
    """One frame of the clip with another object in the same pose, as a person might draw it, `3 h w`."""
    return render([quickstart_clip()[KEY_FRAME].edited(**KEY_FRAME_TARGET)])[0]


def write_clip(scenes: list[Scene], path: Path, fps: int) -> None:
    """Renders the scenes and writes them as H.264, one picture per scene."""
    write_video(render(scenes), path, fps)


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
    scenes = quickstart_clip()
    write_clip(scenes, QUICKSTART_FILE, QUICKSTART_FPS)
    write_video(quickstart_depth(), DEPTH_FILE, QUICKSTART_FPS)
    pixels = (quickstart_key_frame() * 255).round().byte().movedim(0, -1).numpy()
    Image.fromarray(pixels).save(KEY_FRAME_FILE, optimize=True)
    error = read_video(QUICKSTART_FILE) - render(scenes)
    print(
        f"{QUICKSTART_FILE}: {len(scenes)} frames, {QUICKSTART_FILE.stat().st_size / 1000:.1f} kB, "
        f"{-10 * error.square().mean().log10().item():.1f} dB to the renders"
    )
    print(f"source: {QUICKSTART_SOURCE_PROMPT}\ntarget: {QUICKSTART_TARGET_PROMPT}")


if __name__ == "__main__":
    main()
