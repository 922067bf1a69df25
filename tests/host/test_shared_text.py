"""The prompt's keys and values are computed once for all frames that share the prompt, and for each frame otherwise."""

from __future__ import annotations

import pytest
import torch

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]


@pytest.fixture
def text_rows(model, pack):
    """How many texts each projection of the prompt was given, call by call."""
    rows, handles = [], []
    for block in pack("host.unet").transformer_blocks(model.model.diffusion_model):
        for layer in (block.module.attn2.to_k, block.module.attn2.to_v):
            handles.append(layer.register_forward_hook(lambda _, inputs, output: rows.append(len(inputs[0]))))
    yield rows
    for handle in handles:
        handle.remove()


def passing_copies(model):
    """A MODEL whose cross-attentions see a copy of the text, as if another node had changed it."""
    clone = model.clone()
    clone.set_model_attn2_patch(lambda n, context, value, options: (n, context.clone(), value.clone()))
    return clone


def per_frame(*prompts: list) -> list:
    """One conditioning in which every frame has a prompt of its own."""
    return [[torch.cat([tokens for prompt in prompts for tokens, _ in prompt]), {}]]


@pytest.mark.parametrize("cfg, chunks", [(1.0, 1), (4.0, 2)])
def test_once_for_all_frames(cfg, chunks, model, inflate, evaluate, source, encode, random_clip, text_rows):
    inflated, clip = inflate(model, "EI2"), random_clip(frames=3)
    shared = evaluate(inflated, clip, source, encode(""), cfg)
    assert set(text_rows) == {chunks}
    text_rows.clear()
    apart = evaluate(passing_copies(inflated), clip, source, encode(""), cfg)
    assert set(text_rows) == {3 * chunks}
    torch.testing.assert_close(shared, apart, atol=1e-5, rtol=0)


def test_frames_with_prompts_of_their_own(model, inflate, evaluate, source, encode, random_clip, text_rows):
    inflated, clip = inflate(model, "EI2"), random_clip(frames=3)
    prompts = per_frame(source, source, encode("a red circle on a dotted white background"))
    own = evaluate(inflated, clip, prompts)
    assert set(text_rows) == {3}
    torch.testing.assert_close(own, evaluate(passing_copies(inflated), clip, prompts), atol=0, rtol=0)
    assert not torch.allclose(own, evaluate(inflated, clip, source), atol=1e-3)
