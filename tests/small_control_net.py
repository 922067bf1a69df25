"""A ControlNet for the bundled miniature, of random weights: in the test's own process, or as a file for a server.

    python -m tests.small_control_net models/controlnet/small.safetensors

Imports ComfyUI's modules only where it builds one. The tests that talk to a server leave those alone: for them, a
process of its own writes the file.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from devtools.environment import ROOT
from miniature.architecture import UNET

CONTROL_NET = "small.safetensors"
SHARED = (  # with the UNet that it steers
    *("image_size", "in_channels", "model_channels", "channel_mult", "num_res_blocks"),
    *("transformer_depth_middle", "context_dim", "use_spatial_transformer"),
)
OWN = {"hint_channels": 3, "num_heads": -1, "num_head_channels": 64}  # the host's loader takes heads to be this wide
LAYOUT = {key: UNET[key] for key in SHARED} | OWN | {"transformer_depth": [0, 1]}  # 96 channels hold no whole head


def small_control_net():
    """ComfyUI's `comfy.cldm.cldm.ControlNet`. Import the host before."""
    import comfy.cldm.cldm
    import comfy.ops

    with torch.inference_mode():  # as the host loads models
        net = comfy.cldm.cldm.ControlNet(**LAYOUT, dtype=torch.float32, operations=comfy.ops.disable_weight_init)
        generator = torch.Generator().manual_seed(0)
        for parameter in net.parameters():
            scale = parameter.shape[1:].numel() ** -0.5 if parameter.ndim > 1 else 0.02
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return net


def provide_control_net(base: Path) -> str:
    """Writes it for the server whose folder `base` is; returns the name that ComfyUI's own loader has for it."""
    path = base / "models" / "controlnet" / CONTROL_NET
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", __name__, str(path)], cwd=ROOT, check=True)
    return CONTROL_NET


def main(path: Path) -> None:
    from devtools.in_process import import_host

    import_host("cpu")
    save_file({f"control_model.{name}": tensor for name, tensor in small_control_net().state_dict().items()}, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
