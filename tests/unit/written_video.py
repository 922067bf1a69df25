"""Real video files of known content, written with PyAV."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch


def level(index: int) -> float:
    """The grey, 0..1, of frame `index` of a written clip."""
    return ((37 * index) % 200 + 20) / 255


def grey_frame(index: int, width: int, height: int) -> np.ndarray:
    return np.full((height, width, 3), round(level(index) * 255), np.uint8)


def levels(images: torch.Tensor) -> list[float]:
    return images.mean(dim=(1, 2, 3)).tolist()


def tone(seconds: float, rate: int = 48000, channels: int = 2) -> np.ndarray:
    """`channels samples`: a sine whose pitch is 200 Hz in the first second, 400 Hz in the second, and so on."""
    time = np.arange(round(seconds * rate)) / rate
    pitch = 200 * (np.floor(time) + 1)
    return np.tile(0.5 * np.sin(2 * np.pi * pitch * time), (channels, 1)).astype(np.float32)


def write_video(
    path: Path,
    frames: int = 48,
    size=(64, 48),
    rate=24,
    picture=grey_frame,
    sound: np.ndarray | None = None,
    codec: str = "libx264",
    pixels: str = "yuv444p",
    times=None,
    aspect: Fraction | None = None,
) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options={"qp": "0"} if codec == "libx264" else {})
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if sound is not None:
            audio = container.add_stream("aac", rate=48000, layout="mono" if sound.shape[0] == 1 else "stereo")
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(index, *size), "rgb24").reformat(format=pixels)
            if times is not None:
                frame.pts, frame.time_base = round(times[index] * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            block = av.AudioFrame.from_ndarray(sound, "fltp", layout="mono" if sound.shape[0] == 1 else "stereo")
            block.sample_rate, block.pts = 48000, 0
            container.mux(audio.encode(block))
            container.mux(audio.encode())
    return path


def quadrants(index: int, width: int, height: int) -> np.ndarray:
    """Red top left, green top right, blue bottom left, white bottom right."""
    picture = np.full((height, width, 3), 255, np.uint8)
    picture[: height // 2, : width // 2] = (255, 0, 0)
    picture[: height // 2, width // 2 :] = (0, 255, 0)
    picture[height // 2 :, : width // 2] = (0, 0, 255)
    return picture


def textured(index: int, width: int, height: int) -> np.ndarray:
    """A picture that differs from all others and moves."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    colours = [(x * 3 + index * 5) % 256, (y * 4 + index * 3) % 256, (x + y + index * 7) % 256]
    return np.stack(colours, 2).astype(np.uint8)


def encoded(
    path: Path,
    codec: str,
    frames: int,
    options: dict | None = None,
    shift=lambda index: 0,
    rate=25,
    size=(96, 64),
    pixels="yuv420p",
    picture=textured,
    bframes: int = 0,
) -> Path:
    """A file whose time stamps, in frames, are moved by shift(index)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        if bframes:
            stream.codec_context.max_b_frames = bframes
        number = 0
        for index in range(frames + 1):
            frame = None
            if index < frames:
                frame = av.VideoFrame.from_ndarray(picture(index, *size), "rgb24").reformat(format=pixels)
                frame.pts, frame.time_base = index, Fraction(1, rate)
            for packet in stream.encode(frame):
                ticks = round(shift(number) / rate / packet.time_base)
                packet.pts, packet.dts, number = packet.pts + ticks, packet.dts + ticks, number + 1
                container.mux(packet)
    return path


def copied(source: Path, path: Path, move=lambda number, packet: None, options: dict | None = None) -> Path:
    """`source` in another container, without encoding it again. move: called for the packets of the first track."""
    with av.open(str(source)) as before, av.open(str(path), "w", options=options or {}) as container:
        tracks = [container.add_stream_from_template(stream) for stream in before.streams]
        number = 0
        for packet in before.demux():
            if packet.size:
                if packet.stream_index == 0:
                    move(number, packet)
                    number += 1
                packet.stream = tracks[packet.stream_index]
                container.mux(packet)
    return path


def delayed(seconds):
    """For `copied`: packet `number` in decoding order comes `seconds(number)` later."""

    def move(number: int, packet: av.Packet) -> None:
        ticks = round(seconds(number) / packet.time_base)
        packet.dts += ticks
        packet.pts = packet.dts if packet.pts is None else packet.pts + ticks

    return move


def break_packets(path: Path, numbers: list[int], kind: str = "video") -> Path:
    """Overwrites packets of the first track of this kind, counted in the order of the file."""
    with av.open(str(path)) as container:
        stream = next(one for one in container.streams if one.type == kind)
        places = [(packet.pos, packet.size) for packet in container.demux(stream) if packet.size]
    data = bytearray(path.read_bytes())
    for number in numbers:
        pos, size = places[number]
        data[pos : pos + size] = b"\xff" * size
    path.write_bytes(data)
    return path


def hdr_signal(light: np.ndarray, transfer: str) -> np.ndarray:
    """cd/m² -> 0..1, by the definitions of BT.2100: PQ's inverse EOTF; HLG's inverse OOTF for greys, then its OETF."""
    if transfer == "pq":
        power = (light / 10000) ** (2610 / 16384)
        return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
    scene = (light / 1000) ** (1 / 1.2)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)


def hdr_greys(path: Path, grey: np.ndarray, transfer: str, tag: int, alpha: int | None = None) -> Path:
    """A frame of 64 x 64 pixels for each of these greys of sRGB, 0..255, written in HDR. tag: of the transfer;
    alpha: of all pixels, 0..1023, None for a video without."""
    codes = np.round(64 + 876 * hdr_signal(203 * ((grey / 255 + 0.055) / 1.055) ** 2.4, transfer)).astype(np.uint16)
    pixels, more = ("yuv420p10le", ()) if alpha is None else ("yuva420p10le", (alpha,))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, pixels
        stream.codec_context.color_trc, stream.codec_context.color_primaries = tag, 9
        stream.codec_context.colorspace, stream.codec_context.color_range = 9, 1
        for code in codes:
            frame = av.VideoFrame(64, 64, pixels)
            for plane, value in zip(frame.planes, (code, 512, 512, *more)):
                plane.update(np.full(plane.buffer_size // 2, value, "<u2").tobytes())
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
