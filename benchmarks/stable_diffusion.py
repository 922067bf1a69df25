"""The UNets of Stable Diffusion 1.5 and XL, and checkpoints with their layouts and sizes, filled with random numbers.

The checkpoints replace real ones where only shapes matter: loading, inflating, speed, memory. To write them, ComfyUI's
modules must be importable (`in_process.import_host`).
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import torch

# Arguments of the host's `UNetModel`.
COMMON = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "use_spatial_transformer": True,
    "legacy": False,
}
UNETS = {
    "sd15": {
        **COMMON,
        "channel_mult": [1, 2, 4, 4],
        "num_res_blocks": [2, 2, 2, 2],
        "context_dim": 768,
        "num_heads": 8,
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_middle": 1,
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        "use_linear_in_transformer": False,
    },
    "sdxl": {
        **COMMON,
        "channel_mult": [1, 2, 4],
        "num_res_blocks": [2, 2, 2],
        "context_dim": 2048,
        "num_head_channels": 64,
        "transformer_depth": [0, 0, 2, 2, 10, 10],
        "transformer_depth_middle": 10,
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
        "use_linear_in_transformer": True,
        "num_classes": "sequential",
        "adm_in_channels": 2816,
    },
}
VAE = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}
DEVIATION = 0.02  # of the matrices; norms scale by 1 and nothing has a bias


def shapes(layout: str, text_encoder: bool) -> dict[str, torch.Size]:
    """Every tensor of such a checkpoint, from the host's own classes, which take no memory on the meta device.
    `layout`: `sd15` or `sdxl`. `text_encoder`: include SD1.5's, the only one supported here."""
    import comfy.ops
    import comfy.sd1_clip
    from comfy.clip_model import CLIPTextModel
    from comfy.ldm.models.autoencoder import AutoencoderKL
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    layers = comfy.ops.disable_weight_init
    with torch.device("meta"):
        parts = {
            "model.diffusion_model.": UNetModel(**UNETS[layout], operations=layers),
            "first_stage_model.": AutoencoderKL(ddconfig=VAE, embed_dim=4),
        }
        if text_encoder:
            config = json.loads((Path(inspect.getfile(comfy.sd1_clip)).parent / "sd1_clip_config.json").read_text())
            parts["cond_stage_model.transformer."] = CLIPTextModel(config, torch.float16, "meta", layers)
    return {
        prefix + name: tensor.shape
        for prefix, part in parts.items()
        for name, tensor in part.state_dict().items()
        if name != "text_projection.weight"  # not in the checkpoints of SD1
    }


def write(path: Path, layout: str, text_encoder: bool = False) -> None:
    """Writes the file in fp16: 1.9 GB for `sd15`, 2.1 GB with its text encoder, 5.3 GB for `sdxl`. Written by hand, to
    need little memory: every matrix is a piece of the same random numbers."""
    sizes = shapes(layout, text_encoder)
    largest = max(size.numel() for size in sizes.values())
    random = (DEVIATION * torch.randn(largest, generator=torch.Generator().manual_seed(0))).half().numpy()
    ones, zeros = (make(largest, dtype=torch.float16).numpy() for make in (torch.ones, torch.zeros))
    header, offset = {}, 0
    for name, size in sizes.items():
        end = offset + 2 * size.numel()
        header[name] = {"dtype": "F16", "shape": list(size), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, size in sizes.items():
            data = random if len(size) > 1 else zeros if name.endswith(".bias") else ones
            file.write(data[: size.numel()].data)
