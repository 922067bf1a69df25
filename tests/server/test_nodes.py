"""What `/object_info` tells of the pack: saved workflows depend on every id, input order, default and output."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .graphs import QUICKSTART, skip_if_older

pytestmark = pytest.mark.server

ANY = object()  # no default to be compared
FITS = ("crop", "pad", "stretch")

# id: (display name, inputs in order {name: type, choices or (type, default)}, outputs in order {name: type})
NODES = {
    "EI2_LoadVideo": (
        "EI2 Load Video",
        {
            "video": ("COMBO", ANY),
            "width": ("INT", 512),
            "height": ("INT", 512),
            "fit": FITS,
            "start_frame": ("INT", 0),
            "frame_stride": ("INT", 1),
            "max_frames": ("INT", 24),
        },
        {"images": "IMAGE", "fps": "FLOAT", "frame_count": "INT", "audio": "AUDIO", "mask": "MASK"},
    ),
    "EI2_LoadMini": ("EI2 Load Miniature Model", {}, {"model": "MODEL", "clip": "CLIP", "vae": "VAE"}),
    "EI2_InflateUNet": (
        "EI2 Inflate UNet",
        {"model": "MODEL", "preset": ("EI2", "Tune-A-Video", "Video-P2P", "Vid2Vid-zero", "Per-frame")},
        {"model": "MODEL"},
    ),
    "EI2_InflateUNetAdvanced": (
        "EI2 Inflate UNet (Advanced)",
        {
            "model": "MODEL",
            "spatial": ("ffam", "sca", "first_frame", "dense", "dense_sca", "none"),
            "coarse_factor": ("INT", 2),
            "coarse_pool": ("average", "stride"),
            "temporal": ("stam", "attention", "none"),
            "centering": ("frames", "frames_space", "channels", "layer_norm"),
            "normalization": ("bounded", "strict", "off"),
            "normalization_scope": ("qkvo", "vo"),
            "position": ("after_feed_forward", "after_spatial"),
            "group_norm": ("frame", "video"),
        },
        {"model": "MODEL"},
    ),
    "EI2_OneShotTune": (
        "EI2 One-Shot Tune",
        {
            "model": "MODEL",
            "latent": "LATENT",
            "positive": "CONDITIONING",
            "steps": ("INT", 500),
            "learning_rate": ("FLOAT", 3e-5),
            "seed": ("INT", 0),
            "precision": ("auto", "bf16", "fp16", "fp32"),
            "gradient_checkpointing": ("auto", "on", "off"),
        },
        {"model": "MODEL", "tune": "EI2_TUNE", "loss_plot": "IMAGE"},
    ),
    "EI2_Invert": (
        "EI2 Invert (DDIM Inversion)",
        {"model": "MODEL", "latent": "LATENT", "positive": "CONDITIONING", "steps": ("INT", 50), "refine": ("INT", 0)},
        {"inversion": "EI2_INVERSION", "noise_latent": "LATENT", "sigmas": "SIGMAS", "negative": "CONDITIONING"},
    ),
    "EI2_ContextWindows": (
        "EI2 Context Windows (long clips)",
        {"model": "MODEL", "context_length": ("INT", 16), "context_overlap": ("INT", 4)},
        {"model": "MODEL"},
    ),
    "EI2_AttentionControl": (
        "EI2 Attention Control (Prompt-to-Prompt)",
        {
            "clip": "CLIP",
            "source_prompt": ("STRING", ""),
            "target_prompt": ("STRING", ""),
            "mode": ("auto", "replace", "refine"),
            "cross_replace": ("FLOAT", 0.2),
            "self_replace": ("FLOAT", 0.5),
            "self_maps": ("temporal", "spatial", "both"),
            "reweight": ("STRING", ""),
            "blend_source": ("STRING", ""),
            "blend_target": ("STRING", ""),
            "blend_threshold": ("FLOAT", 0.3),
            "blend_start": ("FLOAT", 0.2),
            "unconditional": ("decoupled", "late"),
        },
        {"control": "EI2_CONTROL", "positive": "CONDITIONING", "report": "STRING"},
    ),
    "EI2_EditSample": (
        "EI2 Edit Sample (Vid2Vid)",
        {
            "model": "MODEL",
            "inversion": "EI2_INVERSION",
            "positive": "CONDITIONING",
            "negative": "CONDITIONING",
            "cfg": ("FLOAT", 7.5),
        },
        {"latent": "LATENT", "source_latent": "LATENT", "attention_maps": "IMAGE"},
    ),
    "EI2_CarryKeyFrame": (
        "EI2 Carry Key Frame",
        {
            "model": "MODEL",
            "inversion": "EI2_INVERSION",
            "latent": "LATENT",
            "positive": "CONDITIONING",
            "negative": "CONDITIONING",
            "vae": "VAE",
            "cfg": ("FLOAT", 1.0),
            "denoise": ("FLOAT", 0.3),
            "key_frame_index": ("INT", -1),
        },
        {"latent": "LATENT", "pasted": "IMAGE", "report": "STRING"},
    ),
    "EI2_ShiftProbe": (
        "EI2 Shift Probe",
        {
            "model": "MODEL",
            "latent": "LATENT",
            "positive": "CONDITIONING",
            "timesteps": ("STRING", "100, 300, 500, 700, 900"),
        },
        {"plot": "IMAGE", "table": "STRING"},
    ),
    "EI2_InversionCache": ("EI2 Inversion Cache", {"clear": ("BOOLEAN", False)}, {"report": "STRING"}),
    "EI2_SaveTune": ("EI2 Save Tune", {"tune": "EI2_TUNE", "filename_prefix": ("STRING", "tune")}, {}),
    "EI2_LoadTune": ("EI2 Load Tune", {"tune_name": ("COMBO", ANY)}, {"tune": "EI2_TUNE", "info": "STRING"}),
    "EI2_ApplyTune": (
        "EI2 Apply Tune",
        {"model": "MODEL", "tune": "EI2_TUNE", "temporal_strength": ("FLOAT", 1.0), "query_strength": ("FLOAT", 1.0)},
        {"model": "MODEL"},
    ),
    "EI2_ReconstructionCheck": (
        "EI2 Reconstruction Check",
        {"source": "IMAGE", "reconstruction": "IMAGE"},
        {"advice": "STRING", "psnr": "FLOAT", "ssim": "FLOAT", "difference": "IMAGE", "plot": "IMAGE"},
    ),
    "EI2_Compare": (
        "EI2 Compare (Side by Side)",
        {"video_1": "IMAGE", "labels": ("STRING", "source\nedit"), "layout": ("side by side", "grid", "wipe")},
        {"images": "IMAGE", "contact_sheet": "IMAGE"},
    ),
    "EI2_Metrics": (
        "EI2 Metrics (Flicker, CLIP)",
        {"source": "IMAGE", "edit": "IMAGE"},
        {"table": "STRING", "plot": "IMAGE"},
    ),
    "EI2_Recipe": (
        "EI2 Recipe (Restyle, Swap, Background)",
        {
            "recipe": ("recolour / restyle", "swap the object", "new background", "subtle"),
            "model_kind": ("Stable Diffusion", "bundled miniature"),
        },
        {
            "steps": "INT",
            "learning_rate": "FLOAT",
            "cfg": "FLOAT",
            "cross_replace": "FLOAT",
            "self_replace": "FLOAT",
            "note": "STRING",
        },
    ),
}
OPTIONAL = {
    "EI2_LoadVideo": {"frame_rate": "FLOAT", "background": "STRING"},
    "EI2_Invert": {
        "null_text": "BOOLEAN",
        "null_inner_steps": "INT",
        "null_cfg": "FLOAT",
        "null_source": "CONDITIONING",
        "empty": "CONDITIONING",
        "cache": "BOOLEAN",
        "trajectory": "BOOLEAN",
    },
    "EI2_EditSample": {"control": "EI2_CONTROL", "mask": "MASK", "guidance_end": "FLOAT"},
    "EI2_CarryKeyFrame": {"key_frame": "IMAGE", "mask": "MASK", "skip_unsuitable": "BOOLEAN"},
    "EI2_ShiftProbe": {"compare_with": "MODEL"},
    "EI2_OneShotTune": {
        "snapshot_every": "INT",
        "resume_from": "COMBO",
        "preview_every": "INT",
        "window_frames": "INT",
        "optimizer": "COMBO",
    },
    "EI2_SaveTune": {"prompt": "STRING"},
    "EI2_ReconstructionCheck": {"vae_only": "IMAGE"},
    "EI2_Compare": {f"video_{i}": "IMAGE" for i in range(2, 7)},
    "EI2_Metrics": {"clip_vision": "CLIP_VISION", "clip": "CLIP", "prompt": "STRING", "mask": "MASK"},
}


@pytest.fixture(scope="module")
def known(session_client) -> dict:
    return session_client.object_info()


def test_exactly_these_nodes(known):
    assert {name for name in known if name.startswith("EI2_")} == set(NODES)
    ours = {name for name, info in known.items() if info["python_module"] == "custom_nodes.EI2"}
    assert ours == set(NODES)


@pytest.mark.parametrize("name", NODES)
def test_inputs_and_outputs(known, name):
    display_name, inputs, outputs = NODES[name]
    info = known[name]
    assert info["display_name"] == display_name
    assert info["input_order"].get("required", []) == list(inputs)
    optional = info["input"].get("optional", {})
    assert {key: kind for key, (kind, _) in optional.items()} == OPTIONAL.get(name, {})
    given = info["input"].get("required", {})
    for key, wanted in inputs.items():
        kind, options = given[key]
        if isinstance(wanted, str):
            assert kind == wanted, key
        elif wanted[0] == kind:
            assert wanted[1] is ANY or options["default"] == wanted[1], key
        else:  # the choices, of which the first is the default
            assert kind == "COMBO" and tuple(options["options"]) == wanted, key
            assert options["default"] == wanted[0], key
    assert dict(zip(info["output_name"], info["output"])) == outputs
    assert info["output_name"] == list(outputs)


@pytest.mark.parametrize("name", NODES)
def test_help_texts(known, name):
    info = known[name]
    assert info["category"].split("/")[0] == "EI2"
    assert len(info["description"]) > 20
    for key, (_, options) in [*info["input"].get("required", {}).items(), *info["input"].get("optional", {}).items()]:
        assert len(options.get("tooltip", "")) > 10, f"the input {key} has no tooltip"
    assert all(info["output_tooltips"]) and len(info["output_tooltips"]) == len(info["output"])


def test_video_can_be_uploaded_and_chosen(known):
    options = known["EI2_LoadVideo"]["input"]["required"]["video"][1]
    assert options["video_upload"] is True
    assert {"red_car.mp4", "short.mp4"} <= set(options["options"])


def test_starts_without_complaint(start_log):
    """No traceback that passes through the pack's files, and no failed import."""
    assert "custom_nodes/EI2" in start_log.replace("\\", "/")
    tracebacks = start_log.split("Traceback (most recent call last):")[1:]
    for text in tracebacks:
        lines = text.replace("\\", "/").splitlines()
        end = next((i for i, line in enumerate(lines) if line and not line.startswith(" ")), len(lines))
        assert not any("custom_nodes/EI2" in line or "ei2/" in line for line in lines[: end + 1]), text[:2000]
    assert "(IMPORT FAILED)" not in start_log
    assert not [line for line in start_log.splitlines() if "Cannot import" in line and "EI2" in line]


def workflows() -> list[Path]:
    return sorted(QUICKSTART.parent.glob("*.json"))


@pytest.mark.parametrize("file", workflows(), ids=lambda file: file.name)
def test_bundled_workflows_need_nothing_else(known, file):
    """Every node is the host's or ours, every link and input exists, and no default is left to chance."""
    graph = json.loads(file.read_text(encoding="utf-8"))
    lacking = {entry["class_type"] for entry in graph.values()} - set(known)
    skip_if_older(file.stem, lacking)
    assert not lacking, f"{', '.join(lacking)} does not exist"
    for name, entry in graph.items():
        info = known[entry["class_type"]]
        module = info["python_module"]
        assert module in ("nodes", "custom_nodes.EI2") or module.startswith("comfy_extras."), module
        allowed = [key for group in info["input_order"].values() for key in group]
        assert set(entry["inputs"]) <= set(allowed), f"node {name}"
        assert set(info["input_order"].get("required", [])) <= set(entry["inputs"]), f"node {name}"
        for key, value in entry["inputs"].items():
            if isinstance(value, list):
                source = known[graph[value[0]]["class_type"]]
                kind = {**info["input"].get("required", {}), **info["input"].get("optional", {})}[key][0]
                assert kind in (source["output"][value[1]], "*"), f"node {name}, input {key}"


def test_a_workflow_is_bundled():
    assert QUICKSTART in workflows()
