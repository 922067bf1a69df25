"""Converts a decoded frame to upright RGB of the requested size, with its alpha, by FFmpeg's filters."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import av
import av.filter
import numpy as np
from av.sidedata.sidedata import Type

from . import hdr
from .sizes import scaled_size, target_size

# Lanczos widens its kernel when it downsamples, so it is antialiased. The three other flags stop swscale from rounding
# coarsely and from reusing the colour of neighbouring pixels.
SCALING = "lanczos+full_chroma_int+full_chroma_inp+accurate_rnd"

# A frame's matrix tag (ITU-T H.273) -> the name of that matrix in the filter `scale`.
MATRICES = {1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020", 10: "bt2020"}
FULL_RANGE = 2

# The display matrix's signs (a b / c d) -> filters that make the picture upright. Source: FFmpeg's `display.h`, its
# program's `-autorotate`.
UPRIGHT = {
    (1, 0, 0, 1): "",
    (-1, 0, 0, 1): "hflip",
    (1, 0, 0, -1): "vflip",
    (-1, 0, 0, -1): "hflip,vflip",
    (0, 1, -1, 0): "transpose=clock",
    (0, -1, 1, 0): "transpose=cclock",
    (0, 1, 1, 0): "transpose=cclock_flip",
    (0, -1, -1, 0): "transpose=clock_flip",
}


class AlphaUsed(Exception):
    """A frame has an alpha although it was taken for unused."""


def upright_filters(frame: av.VideoFrame) -> str:
    """The filters that make the frame upright: phones store a rotation, front cameras a reflection, as a matrix.

    Call it for few frames: reading a frame's side data keeps the frame in memory until Python's cyclic garbage
    collection (PyAV 18: frame and side data refer to each other).
    """
    matrix = _side_data(frame).get("DISPLAYMATRIX")
    if matrix is None or len(bytes(matrix)) < 36:
        return ""
    a, b, _, c, d = struct.unpack("=9i", bytes(matrix)[:36])[:5]
    if abs(a) + abs(d) >= abs(b) + abs(c):
        b = c = 0
    else:
        a = d = 0
    sign = lambda value: (value > 0) - (value < 0)
    return UPRIGHT.get((sign(a), sign(b), sign(c), sign(d)), "")


def _side_data(frame: av.VideoFrame) -> Mapping:
    try:
        return frame.side_data
    except ValueError:  # PyAV 18 knows fewer kinds than FFmpeg: not EXIF, which cameras write into MJPEG
        newer = range(len(Type), len(Type) + 32)
        return _through(_graph(frame, ",".join(f"sidedata=delete:{kind}" for kind in newer)), frame).side_data


def displayed_size(frame: av.VideoFrame, aspect: Fraction | None, upright: str) -> tuple[int, int]:
    """Width and height as a player shows the frame: upright, with square pixels. aspect: a pixel's width
    / height; upright: `upright_filters`."""
    width = max(1, round(frame.width * (aspect or Fraction(1))))
    return (frame.height, width) if "transpose" in upright else (width, frame.height)


def has_alpha(frame: av.VideoFrame) -> bool:
    return frame.format.has_palette or any(component.is_alpha for component in frame.format.components)


def _is_opaque(frame: av.VideoFrame) -> bool:
    return frame.to_ndarray(format="rgba")[..., 3].min() == 255


def is_hdr(frame: av.VideoFrame) -> bool:
    return _transfer(frame) in (hdr.PQ, hdr.HLG)


@dataclass
class Pictures:
    """Makes pictures of one size. target: width, height. fit: "crop", "pad", "stretch", or "none" for the source's own
    size with its edges cut. source: the displayed size for "none"; a frame of another size is cropped to fill.
    background: the colour (R, G, B in 0..255) under transparent areas. ignores_alpha: the alpha is 0 throughout and
    means nothing."""

    target: tuple[int, int]
    fit: str
    source: tuple[int, int]
    aspect: Fraction | None = None
    background: tuple[int, int, int] = (0, 0, 0)
    ignores_alpha: bool = False
    _graphs: dict = field(default_factory=dict)
    _upright: dict = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        frame: av.VideoFrame,
        width: int,
        height: int,
        fit: str,
        aspect: Fraction | None,
        background: tuple[int, int, int],
        name: str,
    ) -> Pictures:
        """For a video `name` that begins with this frame; width, height: as
        requested, 0 = the video's. Raises ValueError."""
        source = displayed_size(frame, aspect, upright_filters(frame))
        target = target_size(source, width, height, name)
        return cls(target, "none" if width == 0 and height == 0 else fit, source, aspect, background)

    def picture(self, frame: av.VideoFrame) -> tuple[np.ndarray, np.ndarray | None]:
        """uint8 RGB `h w 3`, and alpha `h w` uint8 or None for an opaque frame. Bars beside an opaque frame are black,
        beside one with transparent parts transparent too. Raises AlphaUsed."""
        colours, opacity = self._without_bars(frame)
        if opacity is None:
            return self._with_bars(colours, 0), None
        return self._with_bars(colours, self.background), self._with_bars(opacity, 0)

    def _without_bars(self, frame: av.VideoFrame) -> tuple[np.ndarray, np.ndarray | None]:
        """The same, for the part of the picture that the frame fills."""
        # an opaque frame is not premultiplied, because FFmpeg loses a level then: 254 for 255
        alpha = has_alpha(frame) and (self.ignores_alpha or not _is_opaque(frame))
        mapped = hdr.needs_mapping(_transfer(frame), _primaries(frame))
        array = self._filtered(frame, ("rgba64le" if mapped else "rgba") if alpha else "rgb48le" if mapped else "rgb24")
        colours, opacity = array[..., :3], array[..., 3] if alpha else None
        if alpha and self.ignores_alpha:
            if opacity.any():
                raise AlphaUsed
            opacity = None
        if opacity is not None and opacity.min() < np.iinfo(opacity.dtype).max:
            if mapped:
                colours, opacity = _mapped_under_alpha(frame, colours, opacity)
            under = (255 - opacity[..., None].astype(np.uint16)) * np.array(self.background, np.uint16)
            colours = colours + (under + 127) // 255  # the colours are premultiplied by alpha
            return np.minimum(colours, 255).astype(np.uint8), np.ascontiguousarray(opacity)
        return (_mapped(frame, colours) if mapped else np.ascontiguousarray(colours)), None

    def is_transparent(self, frame: av.VideoFrame) -> bool:
        """Whether nothing is seen of the frame."""
        return has_alpha(frame) and not self._filtered(frame, "rgba")[..., 3].any()

    def _filtered(self, frame: av.VideoFrame, output: str) -> np.ndarray:
        chain = self._chain(frame, output)
        key = (frame.width, frame.height, frame.format.name, chain)
        if key not in self._graphs:
            self._graphs.clear()
            self._graphs[key] = _graph(frame, chain)
        return _through(self._graphs[key], frame).to_ndarray()

    def _chain(self, frame: av.VideoFrame, output: str) -> str:
        """The filters in FFmpeg's own notation."""
        key = (frame.width, frame.height, frame.format.name, int(frame.rotation))
        if key not in self._upright:
            self._upright[key] = upright_filters(frame)
        upright = self._upright[key]
        source = displayed_size(frame, self.aspect, upright)
        fit = "crop" if self.fit == "none" and source != self.source else self.fit
        width, height = scaled_size(source, self.target, fit)
        inner = (height, width) if "transpose" in upright else (width, height)
        scale = f"scale={inner[0]}:{inner[1]}:flags={SCALING}"
        if output.startswith("rgba") and not self.ignores_alpha:
            # premultiplied, so that hidden colours do not bleed into the edges
            planes = "gbrap" if output == "rgba" else "gbrap16le"
            steps = [f"scale=flags={SCALING}{_colours(frame)}", f"format={planes}", "premultiply=inplace=1", scale]
        else:
            steps = [scale + _colours(frame)]
        steps += [f"format={output}", upright, self._cut(width, height)]
        return ",".join(step for step in steps if step)

    def _cut(self, width: int, height: int) -> str:
        wide, tall = self.target
        if width <= wide and height <= tall:
            return ""
        left, top = max(0, (width - wide) // 2), max(0, (height - tall) // 2)
        return f"crop={min(width, wide)}:{min(height, tall)}:{left}:{top}:exact=1"

    def _with_bars(self, part: np.ndarray, value: int | tuple[int, int, int]) -> np.ndarray:
        """A part of the picture `h w …`, in the middle of the target size."""
        wide, tall = self.target
        height, width = part.shape[:2]
        if (width, height) == self.target:
            return part
        whole = np.empty((tall, wide, *part.shape[2:]), part.dtype)
        whole[:] = value
        top, left = (tall - height) // 2, (wide - width) // 2
        whole[top : top + height, left : left + width] = part
        return whole


def _colours(frame: av.VideoFrame) -> str:
    """Options of `scale`: the frame's matrix and range."""
    layout = frame.format
    if layout.is_rgb or layout.has_palette or len(layout.components) < 3:  # RGB or grey: no matrix
        return ""
    # Untagged: HD is bt709, smaller is bt601, as players assume.
    untagged = "bt709" if frame.width >= 1280 or frame.height > 576 else "bt601"
    full = int(frame.color_range) == FULL_RANGE or layout.name.startswith("yuvj")
    matrix = MATRICES.get(int(frame.colorspace), untagged)
    return f":in_color_matrix={matrix}:in_range={'full' if full else 'limited'}:out_range=full"


def _transfer(frame: av.VideoFrame) -> int:
    return int(getattr(frame, "color_trc", 0) or 0)  # missing in PyAV before 15.1


def _primaries(frame: av.VideoFrame) -> int:
    return int(getattr(frame, "color_primaries", 0) or 0)


def _mapped(frame: av.VideoFrame, colours: np.ndarray) -> np.ndarray:
    return hdr.to_sdr(colours, _transfer(frame), _primaries(frame))


def _mapped_under_alpha(
    frame: av.VideoFrame, colours: np.ndarray, opacity: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`_mapped` for premultiplied colours: uint16 -> uint8, premultiplied again, and the alpha as uint8."""
    straight = colours.astype(np.uint32) * 65535 // np.maximum(opacity, 1)[..., None]
    share = ((opacity.astype(np.uint32) + 128) // 257).astype(np.uint8)
    mapped = _mapped(frame, np.minimum(straight, 65535).astype(np.uint16))
    return ((mapped.astype(np.uint16) * share[..., None] + 127) // 255), share


def _through(graph: av.filter.Graph, frame: av.VideoFrame) -> av.VideoFrame:
    frame.pts = None  # one frame in gives one frame out, whatever the file's clock does
    graph.push(frame)
    return graph.pull()


def _graph(frame: av.VideoFrame, chain: str) -> av.filter.Graph:
    graph = av.filter.Graph()
    last = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format.name, time_base=Fraction(1, 1000)
    )
    for step in chain.split(","):
        name, _, options = step.partition("=")
        one = graph.add(name, options or None)
        last.link_to(one)
        last = one
    last.link_to(graph.add("buffersink"))
    graph.configure()
    return graph
