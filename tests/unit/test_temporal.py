"""STAM and Tune-A-Video's temporal attention against float64 NumPy, and what they leave untouched."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ei2.attention import MAX_BATCH, attention
from ei2.temporal import STAM, TemporalAttention

CHANNELS, HEADS = 16, 4
KINDS = {
    "frames": lambda: STAM(CHANNELS, HEADS),
    "frames_space": lambda: STAM(CHANNELS, HEADS, "frames_space"),
    "channels": lambda: STAM(CHANNELS, HEADS, "channels"),
    "layer_norm": lambda: TemporalAttention(CHANNELS, HEADS),
    "stam_layer_norm": lambda: STAM(CHANNELS, HEADS, "layer_norm"),
}


def softmax(x: np.ndarray) -> np.ndarray:
    weights = np.exp(x - x.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def normalize(x: np.ndarray, kind: str) -> np.ndarray:
    """`f d c`, by the formulas."""
    if kind.endswith("layer_norm"):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x - x.mean({"frames": 0, "frames_space": (0, 1), "channels": 2}[kind], keepdims=True)


def by_formula(module, x: np.ndarray, kind: str) -> np.ndarray:
    """One video `f d c`, position by position and head by head."""
    w = {name: getattr(module, name).weight.detach().double().numpy() for name in ("to_q", "to_k", "to_v", "to_out")}
    n, width = normalize(x, kind), CHANNELS // HEADS
    out = np.empty_like(x)
    for d in range(x.shape[1]):
        q, k, v = (n[:, d] @ w[name].T for name in ("to_q", "to_k", "to_v"))
        heads = [slice(h * width, (h + 1) * width) for h in range(HEADS)]
        mixed = np.concatenate([softmax(q[:, h] @ k[:, h].T / np.sqrt(width)) @ v[:, h] for h in heads], axis=-1)
        bias = module.to_out.bias.detach().double().numpy() if kind == "layer_norm" else 0.0
        out[:, d] = x[:, d] + mixed @ w["to_out"].T + bias
    return out


def trained(kind: str):
    """A module with weights in all its layers."""
    torch.manual_seed(0)
    module = KINDS[kind]().double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return module.eval()


def clip(videos: int, frames: int, tokens: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(frames)
    return torch.randn(videos * frames, tokens, CHANNELS, generator=generator, dtype=torch.float64) * 2 + 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("videos, frames", [(1, 1), (1, 5), (2, 3), (3, 2)])
def test_against_numpy(kind, videos, frames):
    module, x = trained(kind), clip(videos, frames)
    parts = x.numpy().reshape(videos, frames, 6, CHANNELS)
    expected = np.concatenate([by_formula(module, part, kind) for part in parts])
    np.testing.assert_allclose(module(x, frames).detach().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_permuting_frames_permutes_the_output(kind):
    module, x = trained(kind), clip(1, 7)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(module(x[order], 7), module(x, 7)[order], atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_untrained_it_is_the_identity(kind):
    module = KINDS[kind]()
    module.initialize(torch.Generator().manual_seed(0))
    x = clip(2, 4).float()
    assert torch.equal(module(x, 4), x)
    assert module.to_q.weight.any() and module.to_k.weight.any() and module.to_v.weight.any()


def test_layer_norm_is_never_trained():
    """Tune-A-Video's stays at γ = 1, β = 0; its output bias is trained, and STAM has none."""
    layers = {"to_q.weight", "to_k.weight", "to_v.weight", "to_out.weight"}
    assert dict(KINDS["layer_norm"]().named_parameters()).keys() == layers | {"to_out.bias"}
    assert dict(KINDS["stam_layer_norm"]().named_parameters()).keys() == layers


@pytest.mark.parametrize("mode", ["bounded", "off"])
def test_a_restricted_stam_starts_as_the_identity_too(mode):
    module = STAM(CHANNELS, HEADS)
    module.initialize()
    module.restrict(mode, "qkvo")
    x = clip(1, 4).float()
    assert torch.equal(module(x, 4), x)


def test_initial_weights_follow_the_generator():
    def weights(seed):
        module = STAM(CHANNELS, HEADS)
        module.initialize(torch.Generator().manual_seed(seed))
        return module.to_q.weight

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


def test_the_rival_starts_as_its_source_does():
    """At the default of `nn.Linear`, uniform in ±1/√channels; STAM's Xavier start is √3 as large."""
    channels = 64
    for kind, limit in ((TemporalAttention, channels**-0.5), (STAM, (3 / channels) ** 0.5)):
        module = kind(channels, 2)
        module.initialize(torch.Generator().manual_seed(0))
        for layer in (module.to_q, module.to_k, module.to_v):
            assert 0.99 * limit < layer.weight.abs().max() <= limit


@pytest.mark.parametrize("frames", [1, 4, 7])
def test_stam_leaves_a_static_clip_alone(frames):
    """Trained weights or not: without motion there is nothing to mix, and no bias to add."""
    module = trained("frames")
    still = clip(1, 1).expand(frames, -1, -1)
    torch.testing.assert_close(module(still, frames), still, atol=1e-12, rtol=0)
    for kind in ("layer_norm", "stam_layer_norm"):  # the rival does change it, and so does STAM with its norm
        assert (trained(kind)(still, frames) - still).abs().max() > 0.1


def test_a_moving_clip_is_changed():
    module, x = trained("frames"), clip(1, 5)
    assert (module(x, 5) - x).abs().max() > 0.1


def test_videos_do_not_see_each_other():
    module, x = trained("frames_space"), clip(2, 3)
    both = module(x, 3)
    torch.testing.assert_close(both[:3], module(x[:3], 3))
    torch.testing.assert_close(both[3:], module(x[3:], 3))


def test_attention_in_parts_when_there_are_very_many_positions():
    q, k, v = torch.randn(3, MAX_BATCH + 5, 2, 4, generator=torch.Generator().manual_seed(0))
    whole = attention(q, k, v, heads=2)
    torch.testing.assert_close(whole[-7:], attention(q[-7:], k[-7:], v[-7:], heads=2))
    torch.testing.assert_close(whole[:3], attention(q[:3], k[:3], v[:3], heads=2))


def test_the_output_keeps_the_dtype_of_its_input():
    module = STAM(CHANNELS, HEADS)
    x = clip(1, 3).to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert module(x, 3).dtype == torch.bfloat16
