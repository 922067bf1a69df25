"""The node that loads a clip, in ComfyUI's own code: its listing, its checks, its results, cancelling."""

from __future__ import annotations

import asyncio
import json
import os
import re
from pathlib import Path

import av
import numpy as np
import pytest
import torch

pytestmark = pytest.mark.host


def write_video(path: Path, frames: int = 30, sound: bool = True) -> Path:
    """A clip of 96 x 64 at 12 per second that brightens by 6/255 per frame, with a 440 Hz tone."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=12, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv444p"
        audio = container.add_stream("aac", rate=48000, layout="mono") if sound else None
        for index in range(frames):
            picture = np.full((64, 96, 3), 20 + 6 * index % 200, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
        if sound:
            time = np.arange(48000 * frames // 12) / 48000
            block = av.AudioFrame.from_ndarray(
                (0.5 * np.sin(2 * np.pi * 440 * time))[None].astype(np.float32), "fltp", layout="mono"
            )
            block.sample_rate, block.pts = 48000, 0
            container.mux(audio.encode(block))
            container.mux(audio.encode())
    return path


@pytest.fixture
def node(pack):
    return pack("nodes.load_video").LoadVideo


@pytest.fixture
def inputs(tmp_path):
    """An input folder of its own for the host, with `clip.mp4` in it."""
    import folder_paths

    before, folder = folder_paths.get_input_directory(), tmp_path / "input"
    folder.mkdir()
    write_video(folder / "clip.mp4")
    folder_paths.set_input_directory(str(folder))
    yield folder
    folder_paths.set_input_directory(before)


DEFAULTS = dict(video="clip.mp4", width=64, height=64, fit="crop", start_frame=0, frame_stride=1, max_frames=24)


def test_the_schema(node, inputs):
    (inputs / "notes.txt").write_text("no video")
    (inputs / "anim.gif").touch()
    (inputs / "folder.mp4").mkdir()
    schema = node.GET_SCHEMA()
    described = node.INPUT_TYPES()["required"]
    assert list(described) == ["video", "width", "height", "fit", "start_frame", "frame_stride", "max_frames"]
    defaults = {name: options.get("default") for name, (_, options) in described.items()}
    assert defaults == {
        "video": None,
        "width": 512,
        "height": 512,
        "fit": "crop",
        "start_frame": 0,
        "frame_stride": 1,
        "max_frames": 24,
    }
    assert described["video"][1]["options"] == ["anim.gif", "clip.mp4"] and described["video"][1]["video_upload"]
    assert [output.display_name for output in schema.outputs] == ["images", "fps", "frame_count", "audio", "mask"]
    assert all(len(options["tooltip"]) > 40 for _, options in described.values())
    json.dumps(described)  # what /object_info sends


def test_videos_are_listed_whatever_the_machine_calls_them(node, inputs):
    """A machine's list of file types, by which the host goes, often lacks these."""
    names = [
        f"v{suffix}"
        for suffix in (
            ".ts",
            ".mts",
            ".m2ts",
            ".vob",
            ".3gp",
            ".mxf",
            ".webp",
            ".apng",
            ".mkv",
            ".webm",
            ".mov",
            ".avi",
            ".flv",
            ".dv",
            ".h264",
            ".gif",
            ".MOV",
            ".Mts",
        )
    ]
    for name in [*names, "v.txt", "v.png", "v.wav"]:
        (inputs / name).touch()
    (inputs / "link.mp4").symlink_to("x" * 300)  # one that cannot be followed, as into another user's folder
    assert set(node.INPUT_TYPES()["required"]["video"][1]["options"]) == {*names, "clip.mp4"}


def test_new_inputs_are_optional(node, inputs):
    optional = node.INPUT_TYPES()["optional"]
    assert {name: options["default"] for name, (_, options) in optional.items()} == {
        "frame_rate": 0.0,
        "background": "#000000",
    }
    assert all(len(options["tooltip"]) > 40 for _, options in optional.values())
    images, fps, *_ = node.EXECUTE_NORMALIZED(**DEFAULTS | dict(frame_rate=6.0, max_frames=4)).result
    assert fps == 6.0
    expected = [(20 + 6 * index) / 255 for index in (0, 2, 4, 6)]
    assert images.mean((1, 2, 3)).tolist() == pytest.approx(expected, abs=1.5 / 255)
    with pytest.raises(ValueError, match="^background is 'no colour', but must be a colour such as"):
        node.EXECUTE_NORMALIZED(**DEFAULTS | dict(background="no colour"))


def test_warnings_are_shown_on_the_node(node, inputs):
    path = inputs / "clip.mp4"
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    data[packets[5][0] : packets[5][0] + packets[5][1]] = b"\xff" * packets[5][1]
    path.write_bytes(data)
    output = node.EXECUTE_NORMALIZED(**DEFAULTS)
    assert output.result[2] == 24 and "'clip.mp4' is damaged" in output.ui["text"][0]


def test_cancelling_stops_the_reading_of_the_sound(node, inputs, pack, monkeypatch):
    import comfy.model_management as management

    module = pack("nodes.load_video")
    read = module.read_frames

    def read_then_cancel(*args, **options):
        clip = read(*args, **options)
        management.interrupt_current_processing()
        return clip

    monkeypatch.setattr(module, "read_frames", read_then_cancel)
    with pytest.raises(management.InterruptProcessingException):
        node.EXECUTE_NORMALIZED(**DEFAULTS)
    assert not management.processing_interrupted()


def test_frames_rate_count_and_sound(node, inputs):
    with torch.inference_mode():  # as the host runs nodes
        images, fps, count, audio, mask = node.EXECUTE_NORMALIZED(
            **DEFAULTS | dict(start_frame=6, frame_stride=2, max_frames=5)
        ).result
    assert images.shape == (5, 64, 64, 3) and images.dtype == torch.float32 and count == 5 and fps == 6.0
    assert mask.shape == (5, 64, 64) and mask.max() == 0
    expected = [(20 + 6 * index) / 255 for index in (6, 8, 10, 12, 14)]
    assert images.mean((1, 2, 3)).tolist() == pytest.approx(expected, abs=1.5 / 255)
    assert audio["sample_rate"] == 48000 and audio["waveform"].shape == (1, 1, 40000)  # 5 frames at 6 per second
    assert audio["waveform"].square().mean().sqrt() == pytest.approx(0.354, rel=0.1)


def test_a_silent_video_gives_no_sound(node, inputs):
    write_video(inputs / "silent.mp4", 3, sound=False)
    assert node.EXECUTE_NORMALIZED(**DEFAULTS | dict(video="silent.mp4")).result[3] is None


def test_zero_is_the_whole_video_at_its_own_size(node, inputs):
    images = node.EXECUTE_NORMALIZED(**DEFAULTS | dict(width=0, height=0, max_frames=0)).result[0]
    assert images.shape == (30, 64, 96, 3)


@pytest.fixture
def submit(node):
    """Lets the host check a graph, as POST /prompt does, and returns the messages about the node that loads."""
    import execution

    import nodes

    nodes.NODE_CLASS_MAPPINGS["EI2_LoadVideo"] = node

    def check(**changes) -> list[str]:
        graph = {
            "1": {"class_type": "EI2_LoadVideo", "inputs": DEFAULTS | changes},
            "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        }
        valid, _, _, errors = asyncio.run(execution.validate_prompt("test", graph, None))
        messages = [error["details"] for error in errors.get("1", {"errors": []})["errors"]]
        assert valid == (not messages)
        return messages

    yield check
    del nodes.NODE_CLASS_MAPPINGS["EI2_LoadVideo"]


def test_the_host_accepts_good_inputs(submit, inputs):
    (inputs / "sub").mkdir()
    write_video(inputs / "sub" / "b.mp4", 2)
    assert submit() == []
    assert submit(video="sub/b.mp4") == []
    assert submit(video="sub/../clip.mp4", width=0, height=0, fit="pad") == []


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"video": "gone.mp4"},
            "There is no file 'gone.mp4' in ComfyUI's input folder: upload the video again or choose",
        ),
        ({"video": ""}, "No video is chosen: upload one"),
        ({"video": "../secret.mp4"}, "'../secret.mp4' is outside ComfyUI's input folder: copy the video into it"),
        ({"video": "ABSOLUTE"}, "is outside ComfyUI's input folder"),
        ({"video": "../secret.mp4 [input]"}, "is outside ComfyUI's input folder"),
        ({"video": "../input_other/secret.mp4"}, "is outside ComfyUI's input folder"),
        ({"video": "."}, "There is no file '.' in ComfyUI's input folder"),
        ({"height": -8}, "height"),
        ({"width": 16392}, "width"),
        ({"frame_stride": 0}, "frame_stride"),
        ({"start_frame": -1}, "start_frame"),
    ],
)
def test_the_host_refuses_bad_inputs(submit, inputs, changes, message):
    (inputs.parent / "input_other").mkdir()
    for outside in (inputs.parent / "secret.mp4", inputs.parent / "input_other" / "secret.mp4"):
        write_video(outside, 1, sound=False)
    if changes.get("video") == "ABSOLUTE":
        changes = {"video": str(inputs.parent / "secret.mp4")}
    messages = submit(**changes)
    assert len(messages) == 1 and message in messages[0]


def test_execution_refuses_what_the_host_lets_pass(node, inputs):
    """A name from another node is not known when the graph is checked; sizes and fits are checked here only."""
    assert node.validate_inputs(None) is True
    for changes, message in (
        ({"video": "../secret.mp4"}, "'../secret.mp4' is outside ComfyUI's input folder"),
        ({"width": 500}, "width is 500, but must be a multiple of 8 for the VAE: use 496 or 504."),
        ({"fit": "zoom"}, "fit is 'zoom': choose one of crop, pad, stretch."),
        ({"background": "rgb(300, 0, 0)"}, "background is 'rgb(300, 0, 0)', but must be a colour such as #00ff00"),
        ({"frame_rate": 0.0004}, "frame_rate is 0.0004, but must be 0 (the file's) or at least 0.001."),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            node.EXECUTE_NORMALIZED(**DEFAULTS | changes)


def test_the_fingerprint_follows_the_file(node, inputs):
    unknown = node.fingerprint_inputs(**DEFAULTS | dict(video=None))
    assert unknown != unknown  # from another node: read each time
    first = node.fingerprint_inputs(**DEFAULTS)
    assert node.fingerprint_inputs(**DEFAULTS) == first
    os.utime(inputs / "clip.mp4", (1, 1))
    second = node.fingerprint_inputs(**DEFAULTS)
    assert second != first
    write_video(inputs / "clip.mp4", 5)
    os.utime(inputs / "clip.mp4", (1, 1))
    assert node.fingerprint_inputs(**DEFAULTS) != second


def test_cancelling_stops_the_decoding(node, inputs):
    import comfy.model_management as management

    management.interrupt_current_processing()
    with pytest.raises(management.InterruptProcessingException):
        node.EXECUTE_NORMALIZED(**DEFAULTS)
    assert not management.processing_interrupted()
    assert node.EXECUTE_NORMALIZED(**DEFAULTS).result[2] == 24  # and the next run works


def test_progress_reaches_its_end_without_flooding_the_browser(pack):
    import comfy.utils

    heard: list[tuple[int, int]] = []
    comfy.utils.set_progress_bar_global_hook(lambda value, total, preview, node_id=None: heard.append((value, total)))
    try:
        advance = pack("host.ui").progress(5000)
        for _ in range(5000):
            advance()
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
    assert heard[-1] == (5000, 5000) and len(heard) <= 201
