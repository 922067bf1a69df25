"""The host's command-line options: its attention kernels, and weights that are only partly on the device."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.host

ALL = "EI2_ALL_FLAGS"  # set it to run the slower half, too
FLAGS = {  # what is to compute the attention; the first one is compared with
    "": None,
    "--use-split-cross-attention": "attention_split",
    "--use-pytorch-cross-attention": "attention_pytorch",
    "--use-quad-cross-attention": "attention_sub_quad",
    "--lowvram": None,
    "--novram": None,
    "--fp8_e4m3fn-unet": None,
    "--force-fp32": None,
}
RARE = ("--use-quad-cross-attention", "--lowvram", "--novram", "--fp8_e4m3fn-unet", "--force-fp32")


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """What `under_flags.py` gives: attention, losses, edit."""
    found = {}

    def result(flag: str) -> dict:
        if flag not in found:
            target = tmp_path_factory.mktemp("flags") / "result.pt"
            command = [sys.executable, str(Path(__file__).with_name("under_flags.py")), *flag.split(), str(target)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stderr[-3000:]
            found[flag] = torch.load(target)
        return found[flag]

    return result


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if flag])
def test_the_result_is_the_same(flag, result):
    if flag in RARE and not os.environ.get(ALL):
        pytest.skip(f"runs where {ALL} is set")
    plain, found = result(""), result(flag)
    assert FLAGS[flag] in (None, found["attention"])
    assert found["losses"] == pytest.approx(plain["losses"], rel=1e-3)
    torch.testing.assert_close(found["edit"], plain["edit"], atol=0.02, rtol=0)


@pytest.mark.parametrize("share", [0, 0.3])
@pytest.mark.usefixtures("inference_mode")
def test_weights_that_are_only_partly_loaded(share, model, inflate, tune, source, random_clip):
    """As with --novram and --lowvram: the host casts layer by layer and adds patches, such as tuned projections, to the
    weights it has just cast. A CPU never does so by itself, so the host is asked to."""
    import comfy.model_management as management

    def run(tuned) -> torch.Tensor:
        options = {"wrappers": tuned.wrappers, "cond_or_uncond": [0]}
        text = source[0][0].expand(2, -1, -1)
        return tuned.model.apply_model(clip, torch.full((2,), 3.0), c_crossattn=text, transformer_options=options)

    cpu, clip = torch.device("cpu"), random_clip(2, 8, 8)
    tuned, expected_tune = tune(inflate(model, "EI2"), clip, learning_rate=1e-2)
    parts = [tuned, *tuned.get_nested_additional_models()]
    management.load_models_gpu(parts, force_full_load=True)
    expected = run(tuned)
    management.unload_all_models()
    try:
        for part in parts:
            part.load(cpu, lowvram_model_memory=share * part.model_size() + 1)
        unet = tuned.model.diffusion_model
        functions = [m for m in unet.modules() if getattr(m, "weight_function", None)]
        assert tuned.model.model_lowvram and (share > 0 or len(functions) == 14)  # of the tuned projections
        torch.testing.assert_close(run(tuned), expected, atol=1e-4, rtol=0)
        _, again = tune(inflate(model, "EI2"), clip, learning_rate=1e-2)  # loads all of it
        assert again.losses == pytest.approx(expected_tune.losses, rel=1e-4)
    finally:
        for part in parts:
            part.detach()
        management.unload_all_models()
