"""A checkpoint with Stable Diffusion 1.5's layout and sizes, filled with random numbers, through the host's loader."""

from __future__ import annotations

import pytest
import torch

from benchmarks import stable_diffusion
from tests.traces import fingerprint

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.usefixtures("inference_mode")]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The file, 2 GB."""
    path = tmp_path_factory.mktemp("checkpoints") / "random-sd15.safetensors"
    stable_diffusion.write(path, "sd15", text_encoder=True)
    yield path
    path.unlink()


def test_inflates_with_the_sizes_of_the_method(checkpoint, pack, inflate, evaluate, random_clip):
    import comfy.sd

    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(checkpoint), output_vae=True, output_clip=True)
    before = fingerprint(model)
    inflated = inflate(model, "EI2")
    stack = pack("host.inflation").inflation_of(inflated).stack
    assert len(stack) == 16
    widths = sorted(module.to_q.weight.shape[0] for module in stack.values())
    assert widths == [320] * 5 + [640] * 5 + [1280] * 6
    assert {module.heads for module in stack.values()} == {8}
    length = pack("host.automatic").training_length
    assert length(model, 0, 0) == (500, 3e-5, True) and length(model, 7, 1e-4) == (7, 1e-4, False)

    temporal = sum(parameter.numel() for parameter in stack.parameters())
    blocks = pack("host.unet").transformer_blocks(model.model.diffusion_model)
    projections = [block.module.get_submodule(f"attn{i}.to_q") for block in blocks for i in (1, 2)]
    queries = sum(projection.weight.numel() for projection in projections)
    assert temporal == pytest.approx(50e6, rel=0.02)
    assert temporal + queries == pytest.approx(74e6, rel=0.02)
    assert [block.path for block in blocks][:2] == [f"input_blocks.{i}.1.transformer_blocks.0" for i in (1, 2)] and {
        block.place for block in blocks
    } == {*(("input", i) for i in (1, 2, 4, 5, 7, 8)), ("middle", 0), *(("output", i) for i in range(3, 12))}

    prompt = clip.encode_from_tokens_scheduled(clip.tokenize("a jeep driving down a mountain road"))
    assert prompt[0][0].shape == (1, 77, 768)
    frames = random_clip(frames=2, height=8, width=8)
    denoised = evaluate(inflated, frames, prompt)
    assert denoised.shape == frames.shape and torch.isfinite(denoised).all()
    frame = frames[:1]
    assert torch.equal(evaluate(inflated, frame, prompt), evaluate(model, frame, prompt))
    assert fingerprint(model) == before
