"""The layouts of Stable Diffusion 1.5's and XL's UNets, as arguments of the host's `UNetModel`."""

from __future__ import annotations

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
