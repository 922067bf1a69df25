"""The miniature's sizes, shared by the training scripts and the node that loads it. Imports nothing of the host."""

from __future__ import annotations

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
PIXELS = 128  # the picture size the miniature was trained at

TEXT_WIDTH = 128
TEXT_ENCODER = {
    "hidden_size": TEXT_WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 2 * TEXT_WIDTH,
}

HEAD_WIDTH = 32
UNET = {  # the host's names; SD1.5 has 320 channels, multipliers (1, 2, 4, 4) and two ResBlocks a level
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 96,
    "channel_mult": [1, 2],
    "num_res_blocks": [1, 1],
    "transformer_depth": [1, 1],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1],
    "context_dim": TEXT_WIDTH,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": False,
    "adm_in_channels": None,
    "use_temporal_attention": False,
    "legacy": False,
}

# SD's noise schedule: scaled-linear beta over 1000 steps
BETA_START, BETA_END, TRAIN_STEPS = 0.00085, 0.012, 1000
HOST_SCALE = 0.18215  # SD1's latent scale: the host multiplies the VAE's latents by it
