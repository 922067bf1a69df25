"""Writes a ControlNet for the bundled miniature, of random weights, that ComfyUI's own loader reads.

    python -m tests.server.small_control_net models/controlnet/small.safetensors

A process of its own: it imports ComfyUI's modules, which the tests that talk to a server leave alone.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from devtools.environment import ROOT

LAYOUT = {
    "image_size": 32,
    "in_channels": 4,
    "model_channels": 64,
    "hint_channels": 3,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 2],
    "transformer_depth": [1, 1],
    "transformer_depth_middle": 1,
    "context_dim": 128,
    "num_heads": -1,
    "num_head_channels": 64,
    "use_spatial_transformer": True,
}


def write_control_net(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", __name__, str(path)], cwd=ROOT, check=True)


def main(path: Path) -> None:
    from devtools.in_process import import_host

    import_host("cpu")
    import comfy.cldm.cldm
    import comfy.ops

    net = comfy.cldm.cldm.ControlNet(**LAYOUT, dtype=torch.float32, operations=comfy.ops.disable_weight_init)
    generator, state = torch.Generator().manual_seed(0), {}
    for name, tensor in net.state_dict().items():
        scale = tensor.shape[1:].numel() ** -0.5 if tensor.ndim > 1 else 0.02
        state[f"control_model.{name}"] = scale * torch.randn(tensor.shape, generator=generator)
    save_file(state, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
