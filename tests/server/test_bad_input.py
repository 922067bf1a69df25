"""What goes wrong in practice: each mistake gets one clear sentence at the right node, before long work, and leaves
nothing behind."""

from __future__ import annotations

import math
import wave
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import count
from pathlib import Path

import av
import pytest

from miniature.clips import CLIP_FILE

from .graphs import LONG, NEWER_WINDOWS, Graph, changed, edit_graph, fail, node, run, same_pictures

pytestmark = pytest.mark.server

FLOW = "ModelSamplingSD3"
FRAMES = 4


@dataclass(frozen=True)
class Case:
    """A mistake: inputs to change in the good graph, and nodes to add; the node to be blamed; words of its message."""

    name: str
    changes: dict[str, object]
    node: str
    words: tuple[str, ...]
    refused: bool = False  # already by the server's validation, before anything runs
    extra: Callable[[], Graph] = dict
    kind: str = "ValueError"
    begins: tuple[str, ...] = field(default=())  # long nodes that may work before the mistake can be known
    choice: str = ""  # the unknown choice, which ComfyUI 0.18 and newer may refuse themselves


def other_frames() -> Graph:
    """The same clip's first six frames, and a model tuned on them."""
    good = edit_graph(video=CLIP_FILE.name, frames=6, tune_steps=1)
    tune = changed({"tune6": good["tune"]}, {"tune6.latent": ("encode6", 0)})
    return {**changed({"video6": good["video"], "encode6": good["encode"]}, {"encode6.pixels": ("video6", 0)}), **tune}


def latent(class_type: str, **inputs) -> Callable[[], Graph]:
    return lambda: {"latent": node(class_type, **inputs)}


def patched(class_type: str, source: tuple[str, int], **inputs) -> Callable[[], Graph]:
    """The model, made into another kind of model by a node of the host."""
    return lambda: {"patched": node(class_type, model=source, **inputs)}


def advanced(**options) -> Callable[[], Graph]:
    """The model, inflated option by option."""
    defaults = {
        "spatial": "ffam",
        "coarse_factor": 2,
        "coarse_pool": "average",
        "temporal": "stam",
        "centering": "frames",
        "normalization": "bounded",
        "normalization_scope": "qkvo",
        "position": "after_feed_forward",
        "group_norm": "video",
    }
    return lambda: {"advanced": node("EI2_InflateUNetAdvanced", model=("mini", 0), **{**defaults, **options})}


def windows(**options) -> Callable[[], Graph]:
    """The tuned model with the host's context windows."""
    defaults = dict(
        context_length=2,
        context_overlap=1,
        context_schedule="standard_static",
        context_stride=1,
        closed_loop=False,
        fuse_method="pyramid",
        dim=0,
        **NEWER_WINDOWS,
    )
    return lambda: {"windows": node("ContextWindowsManual", model=("tune", 0), **{**defaults, **options})}


def multiplied(exponent: int) -> Callable[[], Graph]:
    """The clip's latents times ten to the power of `exponent`."""

    def build() -> Graph:
        sources = [("encode", 0), *((f"times{i}", 0) for i in range(exponent))]
        return {f"times{i}": node("LatentMultiply", samples=sources[i], multiplier=10.0) for i in range(exponent)}

    return build


def masked() -> Graph:
    mask = node("SolidMask", value=1.0, width=64, height=64)
    return {"mask": mask, "latent": node("SetLatentNoiseMask", samples=("encode", 0), mask=("mask", 0))}


def file(name: str, *words: str, refused: bool = False) -> Case:
    return Case(f"file: {name or 'none'}", {"video.video": name}, "video", words, refused)


SD = "Stable Diffusion 1.5"
CASES = (
    # the file
    file("", "No video is chosen", "upload", refused=True),
    file("missing.mp4", "no file 'missing.mp4'", "choose another", refused=True),
    file("../outside.mp4", "outside", "input folder", refused=True),
    file("../../x.mp4", "outside", "input folder", refused=True),
    file("{base}/outside.mp4", "outside", "input folder", refused=True),
    file("empty.mp4", "'empty.mp4' is empty", "upload it again"),
    file("text.mp4", "'text.mp4' cannot be read as a video", "export"),
    file("cut.mp4", "'cut.mp4' cannot be decoded", "incomplete, damaged", "upload it again"),
    file("cut_later.mp4", "'cut_later.mp4' is damaged or cut off after", "upload it again"),
    file("sound.wav", "'sound.wav' has no picture track", "choose a video"),
    # which part of it, and how large
    Case("start beyond the end", {"video.start_frame": 40}, "video", ("start_frame 40", "4 frames", "use 0 to 3")),
    Case("negative number of frames", {"video.max_frames": -1}, "video", ("-1", "max_frames"), refused=True),
    Case("stride 0", {"video.frame_stride": 0}, "video", ("0", "frame_stride"), refused=True),
    Case("width 100", {"video.width": 100}, "video", ("width is 100", "multiple of 8", "96 or 104")),
    Case("unknown fit", {"video.fit": "zoom"}, "video", ("zoom", "crop, pad, stretch"), choice="zoom"),
    Case("one frame", {"video.max_frames": 1}, "tune", ("one frame", "at least two")),
    # options
    Case("unknown preset", {"inflate.preset": "EI3"}, "inflate", ("'EI3'", "EI2, Tune-A-Video"), refused=True),
    Case(
        "unknown precision",
        {"tune.precision": "fp8"},
        "tune",
        ("precision is 'fp8'", "auto, bf16, fp16, fp32"),
        choice="fp8",
    ),
    Case(
        "unknown checkpointing",
        {"tune.gradient_checkpointing": "maybe"},
        "tune",
        ("'maybe'", "auto, on, off"),
        choice="maybe",
    ),
    Case(
        "unknown advanced option",
        {"tune.model": ("advanced", 0)},
        "advanced",
        ("spatial is 'everything'", "ffam, sca, first_frame, dense, dense_sca, none"),
        extra=advanced(spatial="everything"),
        choice="everything",
    ),
    Case(
        "advanced option without effect",
        {"tune.model": ("advanced", 0)},
        "advanced",
        ("coarse_factor 4 has no effect unless spatial is ffam", "set spatial to ffam"),
        extra=advanced(spatial="sca", coarse_factor=4),
    ),
    Case("negative steps", {"tune.steps": -1}, "tune", ("-1", "steps"), refused=True),
    Case("too many inversion steps", {"invert.steps": 1000}, "invert", ("1000", "steps"), refused=True),
    # the model
    Case(
        "flow model inflated",
        {"inflate.model": ("patched", 0)},
        "inflate",
        ("flow", SD),
        extra=patched(FLOW, ("mini", 0), shift=3.0),
    ),
    Case(
        "flow model tuned",
        {"tune.model": ("patched", 0)},
        "tune",
        ("flow", SD),
        extra=patched(FLOW, ("inflate", 0), shift=3.0),
    ),
    Case(
        "flow model inverted",
        {"invert.model": ("patched", 0)},
        "invert",
        ("flow", SD),
        begins=("tune",),
        extra=patched(FLOW, ("tune", 0), shift=3.0),
    ),
    Case(
        "flow model sampled",
        {"edit.model": ("patched", 0)},
        "edit",
        ("flow", SD),
        begins=("tune", "invert"),
        extra=patched(FLOW, ("tune", 0), shift=3.0),
    ),
    Case(
        "EDM model",
        {"inflate.model": ("patched", 0)},
        "inflate",
        ("EDM", SD),
        extra=patched("ModelSamplingContinuousEDM", ("mini", 0), sampling="edm", sigma_max=120.0, sigma_min=0.002),
    ),
    Case("tune without inflation", {"tune.model": ("mini", 0)}, "tune", ("not inflated", "EI2 Inflate UNet")),
    Case(
        "edit without inflation",
        {"edit.model": ("mini", 0)},
        "edit",
        ("not inflated", "EI2 Inflate UNet"),
        begins=("tune", "invert"),
    ),
    Case(
        "windows along another dimension",
        {"invert.model": ("windows", 0)},
        "invert",
        ("cut dimension 2", "set dim", "to 0"),
        extra=windows(dim=2),
        begins=("tune",),
    ),
    Case(
        "windows of another length",
        {"invert.model": ("windows", 0)},
        "invert",
        ("tuned on 4 frames at once", "have 2", "context_length"),
        extra=windows(),
        begins=("tune",),
    ),
    Case(
        "invert other frames",
        {"invert.latent": ("encode6", 0)},
        "invert",
        ("tuned on 4 frames", "has 6", "same clip"),
        extra=other_frames,
        begins=("tune",),
    ),
    Case(
        "edit with a model of other frames",
        {"edit.model": ("tune6", 0)},
        "edit",
        ("tuned on 6 frames", "has 4", "same clip"),
        extra=other_frames,
        begins=("tune", "tune6", "invert"),
    ),
    # the latents
    Case(
        "latent of a video model",
        {"tune.latent": ("latent", 0)},
        "tune",
        ("not a batch of frames", "VAE Encode"),
        extra=latent("EmptyHunyuanLatentVideo", width=64, height=64, length=5, batch_size=1),
    ),
    Case(
        "inverted latent of a video model",
        {"invert.latent": ("latent", 0)},
        "invert",
        ("not a batch of frames",),
        extra=latent("EmptyHunyuanLatentVideo", width=64, height=64, length=5, batch_size=1),
        begins=("tune",),
    ),
    Case(
        "latent with 16 channels",
        {"tune.latent": ("latent", 0)},
        "tune",
        ("16 channels", "needs 4", "VAE"),
        extra=latent("EmptySD3LatentImage", width=64, height=64, batch_size=FRAMES),
    ),
    Case("latent with a mask", {"tune.latent": ("latent", 0)}, "tune", ("mask",), extra=masked),
    Case(
        "infinite latents tuned",
        {"tune.latent": ("times39", 0)},
        "tune",
        ("NaN or infinite", "encode"),
        extra=multiplied(40),
    ),
    Case(
        "infinite latents inverted",
        {"invert.latent": ("times39", 0)},
        "invert",
        ("NaN or infinite", "encode"),
        extra=multiplied(40),
        begins=("tune",),
    ),
    Case(
        "loss not finite",
        {"tune.latent": ("times19", 0)},
        "tune",
        ("loss became", "step 1 of", "learning rate", "model is unchanged"),
        extra=multiplied(20),
        kind="NonFiniteLoss",
        begins=("tune",),
    ),
    Case(
        "inversion not finite",
        {"invert.latent": ("times19", 0)},
        "invert",
        ("NaN or infinite",),
        extra=multiplied(20),
        begins=("tune", "invert"),
    ),
)


@pytest.fixture(scope="module")
def broken(server) -> Path:
    """Puts broken files into the input folder and a good one beside it; returns the server's base folder."""
    folder, good = server.base / "input", CLIP_FILE.read_bytes()
    (server.base / "outside.mp4").write_bytes(good)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("This is a shopping list, not a video.\n" * 50)
    (folder / "cut.mp4").write_bytes(good[:400])  # within the header
    (folder / "cut_later.mp4").write_bytes(good[: len(good) * 9 // 20])  # within the second frame
    with wave.open(str(folder / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16000))
    return server.base


def written(base: Path) -> dict[Path, tuple[int, int]]:
    """Every file the server may have written for a run: path -> size, time."""
    folders = [base / name for name in ("input", "output", "temp", "models")]
    files = [file for folder in folders if folder.exists() for file in folder.rglob("*") if file.is_file()]
    return {file: (file.stat().st_size, file.stat().st_mtime_ns) for file in files}


@pytest.fixture(scope="module")
def good_run(session_client, exact):
    """Runs the good graph, everything after loading the model computed anew, and returns its frames."""
    # The clip ends after 4 frames: a larger limit changes no frame, but makes the run a new one to the host.
    limits = count(FRAMES + 1)

    def compute():
        graph = changed(edit_graph(tune_steps=2, invert_steps=3), {"video.max_frames": next(limits)})
        result = run(session_client, graph)
        assert {"video", "tune", "invert", "edit", "save"} <= result.executed()
        return result.pictures()

    return compute


@pytest.fixture(scope="module")
def reference(good_run):
    return good_run()


def check_sentence(message: str) -> None:
    """One or two plain sentences, said once; not a traceback or a bare number."""
    assert 20 < len(message) < 300, message
    assert "Traceback" not in message and "\n" not in message.strip() and " | " not in message, message


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_mistake(client, broken, good_run, reference, exact, case):
    graph = {**edit_graph(tune_steps=2, invert_steps=3), **case.extra()}
    changes = {key: _in_base(value, broken) for key, value in case.changes.items()}
    before = written(broken)

    failure = fail(client, changed(graph, changes))

    assert failure is not None, "nobody noticed"
    print(f"{case.name}: {failure.node}: {failure.message}")
    by_the_host = bool(case.choice) and failure.message.startswith("Value not in list")
    words, refused = ((f"'{case.choice}'",), True) if by_the_host else (case.words, case.refused)
    assert failure.where == ("node_errors" if refused else "execution_error")
    assert failure.node == case.node, failure.message
    assert [word for word in words if word not in failure.message] == [], failure.message
    check_sentence(failure.message)
    if not refused:
        assert failure.kind.rsplit(".", 1)[-1] == case.kind
    long = [name for name, entry in graph.items() if entry["class_type"] in LONG and name not in case.begins]
    for name in long:
        assert not [done for done, _ in failure.progress(name) if done > 0], f"{name} had begun"

    assert written(broken) == before
    assert same_pictures(good_run(), reference, exact)
    assert good_output_only(before, written(broken))


def _in_base(value, base: Path):
    return value.replace("{base}", str(base)) if isinstance(value, str) else value


def good_output_only(before: dict, after: dict) -> bool:
    """The good run wrote its frames and nothing else."""
    new = [file for file in after if file not in before]
    return len(new) == FRAMES and all(file.suffix == ".png" for file in new)


def test_video_without_frames(client, broken):
    """A file that promises a picture track and holds no picture."""
    path = broken / "input" / "no_frames.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(8))
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        container.start_encoding()
    failure = fail(client, edit_graph(video=path.name))
    assert failure is not None and failure.node == "video"
    assert "no_frames.mkv" in failure.message and ("has no frames" in failure.message or "cannot" in failure.message)
    check_sentence(failure.message)


def test_fp16_training_on_a_cpu(client, exact, good_run, reference):
    if not exact:
        pytest.skip("the server has a GPU, on which fp16 training is right")
    failure = fail(client, changed(edit_graph(), {"tune.precision": "fp16"}))
    assert failure is not None and failure.node == "tune"
    assert "fp16 training needs a GPU" in failure.message and "bf16 or fp32" in failure.message
    assert not [done for done, _ in failure.progress("tune") if done > 0]
    assert same_pictures(good_run(), reference, exact)


def test_learning_rate_too_high(client, good_run, reference, exact):
    """The largest learning rate either breaks the training, which is then said, or still gives real pictures."""
    graph = changed(edit_graph(tune_steps=12), {"tune.learning_rate": 0.1})
    failure = fail(client, graph)
    print(failure.message if failure else "the training holds")
    if failure is None:
        assert math.isfinite(run(client, graph).pictures().std().item())
    else:
        assert failure.node in ("tune", "invert", "edit")
        assert "earning rate" in failure.message or "NaN or infinite" in failure.message
        check_sentence(failure.message)
    assert same_pictures(good_run(), reference, exact)
