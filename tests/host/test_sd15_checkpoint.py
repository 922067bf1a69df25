"""A checkpoint with Stable Diffusion 1.5's layout and sizes, filled with random numbers, through the host's loader."""

from __future__ import annotations

import hashlib
import inspect
import json
from pathlib import Path

import pytest
import torch

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.usefixtures("inference_mode")]

UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "channel_mult": [1, 2, 4, 4],
    "num_res_blocks": [2, 2, 2, 2], "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], "context_dim": 768,
    "use_spatial_transformer": True, "use_linear_in_transformer": False, "legacy": False, "num_heads": 8,
}  # fmt: skip
VAE = {
    "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128,
    "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip


def shapes() -> dict[str, torch.Size]:
    """Every tensor of an SD1.5 checkpoint, from the host's own classes, which take no memory on the meta device."""
    import comfy.ops
    import comfy.sd1_clip
    from comfy.clip_model import CLIPTextModel
    from comfy.ldm.models.autoencoder import AutoencoderKL
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    layers = comfy.ops.disable_weight_init
    clip_config = json.loads((Path(inspect.getfile(comfy.sd1_clip)).parent / "sd1_clip_config.json").read_text())
    with torch.device("meta"):
        parts = {
            "model.diffusion_model.": UNetModel(**UNET, operations=layers),
            "first_stage_model.": AutoencoderKL(ddconfig=VAE, embed_dim=4),
            "cond_stage_model.transformer.": CLIPTextModel(clip_config, torch.float16, "meta", layers),
        }
    return {
        prefix + name: tensor.shape
        for prefix, part in parts.items()
        for name, tensor in part.state_dict().items()
        if name != "text_projection.weight"  # not in the checkpoints of SD1
    }


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The file, 2 GB, fp16. Written by hand: every tensor is a piece of the same random numbers."""
    path = tmp_path_factory.mktemp("checkpoints") / "random-sd15.safetensors"
    sizes = shapes()
    largest = max(size.numel() for size in sizes.values())
    data = (0.02 * torch.randn(largest, generator=torch.Generator().manual_seed(0))).half().numpy()
    header, offset = {}, 0
    for name, size in sizes.items():
        end = offset + 2 * size.numel()
        header[name] = {"dtype": "F16", "shape": list(size), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for size in sizes.values():
            file.write(data[: size.numel()].data)
    yield path
    path.unlink()


def fingerprint(model) -> str:
    digest = hashlib.sha1()
    for name, tensor in model.model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def test_inflates_with_the_sizes_of_the_method(checkpoint, pack, inflate, evaluate, random_clip):
    import comfy.sd

    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(checkpoint), output_vae=True, output_clip=True)
    before = fingerprint(model)
    inflated = inflate(model, "EI2")
    stack = pack("nodes.host.inflation").inflation_of(inflated).stack
    assert len(stack) == 16
    widths = sorted(module.to_q.weight.shape[0] for module in stack.values())
    assert widths == [320] * 5 + [640] * 5 + [1280] * 6
    assert {module.heads for module in stack.values()} == {8}

    temporal = sum(parameter.numel() for parameter in stack.parameters())
    blocks = pack("nodes.host.unet").transformer_blocks(model.model.diffusion_model)
    projections = [block.module.get_submodule(f"attn{i}.to_q") for block in blocks for i in (1, 2)]
    queries = sum(projection.weight.numel() for projection in projections)
    assert temporal == pytest.approx(50e6, rel=0.02)
    assert temporal + queries == pytest.approx(74e6, rel=0.02)
    assert [block.path for block in blocks][:2] == [
        f"input_blocks.{i}.1.transformer_blocks.0" for i in (1, 2)
    ] and {block.place for block in blocks} == {
        *(("input", i) for i in (1, 2, 4, 5, 7, 8)), ("middle", 0), *(("output", i) for i in range(3, 12))
    }  # fmt: skip

    prompt = clip.encode_from_tokens_scheduled(clip.tokenize("a jeep driving down a mountain road"))
    assert prompt[0][0].shape == (1, 77, 768)
    frames = random_clip(frames=2, height=8, width=8)
    denoised = evaluate(inflated, frames, prompt)
    assert denoised.shape == frames.shape and torch.isfinite(denoised).all()
    frame = frames[:1]
    assert torch.equal(evaluate(inflated, frame, prompt), evaluate(model, frame, prompt))
    assert fingerprint(model) == before
