"""Weights as the host may keep them: what is tuned is float32 and learns as much, and the edit is finite."""

from __future__ import annotations

import pytest
import torch

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]

# weights, arithmetic where it differs (the host's manual cast, as on a CPU), and how much worse a tuned model may be
DTYPES = {
    "fp32, computed in bf16": (torch.float32, torch.bfloat16, 0.03),  # the miniature on a CPU with bf16 units
    "fp16, computed in fp32": (torch.float16, torch.float32, 0.01),
    "bf16, computed in fp32": (torch.bfloat16, torch.float32, 0.015),
    "bf16": (torch.bfloat16, None, 0.03),
    "fp8_e4m3fn": (torch.float8_e4m3fn, torch.float32, 0.1),
    "fp8_e5m2": (torch.float8_e5m2, torch.float32, 0.1),
}


@pytest.fixture(scope="module")
def load(pack):
    """The miniature with weights of another kind, by the host's own means."""
    import comfy.latent_formats
    import comfy.model_patcher
    from safetensors.torch import load_file

    miniature, architecture = pack("host.miniature"), pack("miniature.architecture")

    def load(dtype, cast):
        config = miniature.MiniatureConfig(architecture.UNET)
        config.set_inference_dtype(dtype, cast)
        config.latent_format = comfy.latent_formats.SD15()
        base = config.get_model({}, "")
        base.load_model_weights(load_file(architecture.WEIGHTS / "unet.safetensors"), "")
        assert base.get_dtype() == dtype and next(base.diffusion_model.parameters()).dtype == dtype
        return comfy.model_patcher.ModelPatcher(base, torch.device("cpu"), torch.device("cpu"))

    return load


@pytest.fixture(scope="module")
def learn(inflate, tune, evaluate, source, random_clip):
    """Tunes, and says how well the clip is denoised: `learn(model)` -> error before and after, MODEL, result."""
    clip = random_clip(2, 8, 8)

    def error(model) -> float:
        noise = torch.randn(clip.shape, generator=torch.Generator().manual_seed(0))
        denoised = evaluate(model, clip + 2 * noise / 0.18215, source, sigma=2.0)
        return float((denoised - 0.18215 * clip).square().mean())

    def learn(model):
        inflated = inflate(model, "EI2")
        tuned, result = tune(inflated, clip, steps=15, learning_rate=5e-3)
        return error(inflated), error(tuned), tuned, result

    return learn


@pytest.fixture(scope="module")
def reference(load, learn):
    with torch.inference_mode():
        return learn(load(torch.float32, None))


@pytest.mark.parametrize("name", DTYPES)
def test_it_learns_as_with_fp32(name, load, learn, reference, pack, encode, source, random_clip):
    dtype, cast, tolerance = DTYPES[name]
    before, after, tuned, result = learn(load(dtype, cast))
    assert after < 0.9 * before and after == pytest.approx(reference[1], rel=tolerance)
    assert all(w.dtype == torch.float32 for w in {**result.temporal, **result.query}.values())
    stack = pack("host.inflation").inflation_of(tuned).stack
    assert {weight.dtype for weight in stack.parameters()} == {cast or dtype}  # kept as the UNet computes
    assert all(parameter.dtype == dtype for parameter in tuned.model.diffusion_model.parameters())

    clip = {"samples": random_clip(2, 8, 8)}
    inversion = pack("nodes.invert").Invert.execute(tuned, clip, source, 3, 0).args[0]
    edit = pack("nodes.edit_sample").EditSample.execute(tuned, inversion, encode("a red circle"), encode(""), 4.0)
    assert torch.isfinite(edit.args[0]["samples"]).all()


def test_patches_of_layers_that_are_offloaded_after_training(load, inflate, tune, random_clip):
    """For training in another precision than the model's, the host marks its layers. If the next load has no room for
    all of them, those that it offloads would lose their patches: tuned projections and LoRAs."""
    tuned, _ = tune(inflate(load(torch.bfloat16, None), "EI2"), random_clip(2, 8, 8), precision="fp32")
    tuned.load(torch.device("cpu"), lowvram_model_memory=1)
    try:
        functions = [m for m in tuned.model.diffusion_model.modules() if getattr(m, "weight_function", None)]
        assert tuned.model.model_lowvram and len(functions) == 14  # of the tuned projections
    finally:
        tuned.detach()


def test_null_text_with_fp8_weights(load, inflate, pack, source, encode, random_clip):
    inversion = (
        pack("nodes.invert")
        .Invert.execute(
            inflate(load(torch.float8_e4m3fn, torch.float32), "EI2"),
            {"samples": random_clip(2, 8, 8)},
            source,
            2,
            0,
            null_text=True,
            null_inner_steps=2,
            empty=encode(""),
        )
        .args[0]
    )
    assert torch.isfinite(inversion.unconditional).all()


def test_quantized_weights_are_refused_in_words(pack, inflate):
    """As newer hosts load them from a file that says so."""
    pytest.importorskip("comfy_kitchen")
    import json

    import comfy.latent_formats
    import comfy.model_patcher
    from safetensors.torch import load_file

    architecture = pack("miniature.architecture")
    state = load_file(architecture.WEIGHTS / "unet.safetensors")
    for name in [name for name in state if name.endswith("attn1.to_q.weight")]:
        scale = state[name].abs().max().float() / 448
        state[name] = (state[name].float() / scale).to(torch.float8_e4m3fn)
        layer = name.removesuffix("weight")
        note = json.dumps({"format": "float8_e4m3fn"}).encode()
        state |= {f"{layer}weight_scale": scale, f"{layer}comfy_quant": torch.tensor(list(note), dtype=torch.uint8)}
    config = pack("host.miniature").MiniatureConfig(architecture.UNET)
    config.set_inference_dtype(torch.float32, None)
    config.latent_format, config.quant_config = comfy.latent_formats.SD15(), {"mixed_ops": True}
    base = config.get_model({}, "")
    base.load_model_weights(state, "")
    weight = base.diffusion_model.input_blocks[1][1].transformer_blocks[0].attn1.to_q.weight
    if type(weight.data) is torch.Tensor:
        pytest.skip("this ComfyUI loads no quantized weights")
    model = comfy.model_patcher.ModelPatcher(base, torch.device("cpu"), torch.device("cpu"))
    with pytest.raises(ValueError, match="quantized .* load its fp16 or bf16 file"):
        inflate(model, "EI2")
