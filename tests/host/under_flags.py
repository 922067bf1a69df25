"""Tunes, inverts and edits a few tiny frames in a ComfyUI started with the options on the command line, and prints what
came of it: `python tests/host/under_flags.py --use-split-cross-attention RESULT.pt`. Run by `test_host_flags.py`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from devtools import host, in_process

os.environ["EI2_CACHE_MB"] = "0"  # every run inverts anew, and leaves nothing in the user's ComfyUI
sys.path.insert(0, str(host.locate()))
import comfy.options

comfy.options.enable_args_parsing()
target = sys.argv.pop()
in_process.import_host(exact="--force-fp32" not in sys.argv)  # so that this flag alone has to do the same
in_process.import_pack()

import torch
from comfy.ldm.modules import attention

pack = in_process.pack


def main() -> None:
    model, clip, _ = pack("host.miniature").load_miniature()
    encode = pack("host.clip").encode
    prompts = [encode(clip, f"a {what} on a plain white background") for what in ("blue square", "red circle")]
    frames = {"samples": 5 * torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))}
    (inflated,) = pack("nodes.inflate_unet").InflateUNet.execute(model, "EI2").args
    tune = pack("nodes.one_shot_tune").OneShotTune
    tuned, learned = tune.execute(inflated, frames, prompts[0], 3, 1e-3, 0, "fp32", "auto").args[:2]
    inversion = pack("nodes.invert").Invert.execute(tuned, frames, prompts[0], 3, 0).args[0]
    edit = pack("nodes.edit_sample").EditSample
    edited = edit.execute(tuned, inversion, prompts[1], encode(clip, ""), 4.0).args[0]["samples"]
    kernel = attention.optimized_attention.__name__
    torch.save({"attention": kernel, "losses": learned.losses, "edit": edited.clone()}, target)


with torch.inference_mode():
    main()
