"""What users do wrong with a graph, and what each mistake is answered with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .bad_parts import advanced, latent, masked, multiplied, other_frames, patched, windows
from .graphs import Graph

FLOW = "ModelSamplingSD3"
FRAMES = 4
SD = "Stable Diffusion 1.5"


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


def file(name: str, *words: str, refused: bool = False) -> Case:
    return Case(f"file: {name or 'none'}", {"video.video": name}, "video", words, refused)


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
