"""Attention under control against its formulas: what the attention's output is made of in the host's sampling."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch
from einops import rearrange

from . import controlled_edit
from .controlled_edit import FRAMES, LONGER, STEPS, TARGET

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]

control, edit = controlled_edit.control, controlled_edit.edit
tuned, inversion = controlled_edit.tuned, controlled_edit.inversion


def attention_weights(q, k, heads):
    q, k = (rearrange(t.double(), "b n (h c) -> b h n c", h=heads) for t in (q, k))
    return (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)


def weighted(weights, v):
    v = rearrange(v.double(), "b n (h c) -> b h n c", h=weights.shape[1])
    return rearrange(weights @ v, "b h n c -> b n (h c)")


class Spy:
    """What an attention's projections give and what its output projection reads, call by call."""

    def __init__(self, attention):
        self.calls: list[dict[str, torch.Tensor]] = []
        self.attention = attention

    def __enter__(self):
        self.hooks = ExitStack()
        for name in ("to_q", "to_k", "to_v"):
            keep = lambda _, __, output, name=name: self._keep(name, output)
            self.hooks.callback(self.attention.get_submodule(name).register_forward_hook(keep).remove)
        out = self.attention.to_out
        out = out[0] if isinstance(out, torch.nn.Sequential) else out
        self.hooks.callback(out.register_forward_pre_hook(lambda _, inputs: self._keep("out", inputs[0])).remove)
        return self

    def _keep(self, name, value):
        if name == "to_q":
            self.calls.append({})
        if value.ndim == 4:  # a temporal module's videos, frames and positions
            value = rearrange(value, "b f d c -> (b d) f c")
        self.calls[-1][name] = value.clone()

    def __exit__(self, *_):
        self.hooks.close()


def target_row(call, name, chunk_order):
    """The prompt's chunk of a call's value."""
    return call[name].chunk(len(chunk_order))[chunk_order.index(0)]


@pytest.fixture
def chunk_orders(pack):
    """A wrapper that notes the host's `cond_or_uncond` of every call; add it with `attach(model)`."""

    class Orders(list):
        def attach(self, model):
            from comfy.patcher_extension import WrappersMP

            clone = model.clone()

            def note(executor, *args, **kwargs):
                options = kwargs.get("transformer_options") or args[5]
                self.append(list(options["cond_or_uncond"]))
                return executor(*args, **kwargs)

            clone.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "order spy", note)
            return clone

    return Orders()


@pytest.mark.parametrize("target", [TARGET, LONGER])
@pytest.mark.parametrize("place", [("input", 1), ("middle", 0)])
def test_cross_attention_follows_the_formula(pack, tuned, inversion, control, edit, chunk_orders, target, place):
    wanted = control(target, cross_replace=1.0, reweight="red: 2")
    blocks = pack("host.unet").transformer_blocks(tuned.model.diffusion_model)
    block = next(block for block in blocks if block.place == place)
    with Spy(block.module.attn2) as spy:
        edit(chunk_orders.attach(tuned), inversion, wanted)
    source, call, order = spy.calls[0], spy.calls[1], chunk_orders[1]
    assert chunk_orders[0] == [0] and sorted(order) == [0, 1]
    q, k, v = (target_row(call, name, order) for name in ("to_q", "to_k", "to_v"))
    old = attention_weights(source["to_q"], source["to_k"], block.heads) @ wanted.tokens.matrix.double()
    own = attention_weights(q, k, block.heads)
    shared = wanted.tokens.shared.double()
    maps = (old * shared + own * (1 - shared)) * wanted.factors.double()
    torch.testing.assert_close(target_row(call, "out", order).double(), weighted(maps, v), rtol=0, atol=2e-5)
    other = 1 - order.index(0)  # the negative's chunk is left alone
    q, k, v, out = (call[name].chunk(2)[other] for name in ("to_q", "to_k", "to_v", "out"))
    torch.testing.assert_close(out.double(), weighted(attention_weights(q, k, block.heads), v), rtol=0, atol=2e-5)


def test_temporal_maps_are_the_sources(pack, tuned, inversion, control, edit, chunk_orders):
    name, module = list(pack("host.inflation").require_inflation(tuned).stack.items())[3]
    with Spy(module) as spy:
        edit(chunk_orders.attach(tuned), inversion, control(self_replace=0.5))
    for step in range(STEPS):
        source, call, order = spy.calls[2 * step], spy.calls[2 * step + 1], chunk_orders[2 * step + 1]
        whose = source if step < STEPS // 2 else {key: target_row(call, key, order) for key in call}
        maps = attention_weights(whose["to_q"], whose["to_k"], module.heads)
        out, v = (target_row(call, key, order).double() for key in ("out", "to_v"))
        torch.testing.assert_close(out, weighted(maps, v), rtol=0, atol=2e-5)


def test_spatial_maps_are_the_sources_under_ffam(pack, tuned, inversion, control, edit, chunk_orders):
    blocks = pack("host.unet").transformer_blocks(tuned.model.diffusion_model)
    block = next(block for block in blocks if block.place == ("middle", 0))
    attend = lambda q, k, v: weighted(attention_weights(q, k, block.heads), v)
    ffam = pack("ei2.ffam").fine_coarse_attention
    with Spy(block.module.attn1) as spy:
        edit(chunk_orders.attach(tuned), inversion, control(self_replace=1.0, self_maps="spatial"))
    source, call, order = spy.calls[0], spy.calls[1], chunk_orders[1]
    side = int(source["to_q"].shape[1] ** 0.5)
    q, k, v = source["to_q"].double(), source["to_k"].double(), target_row(call, "to_v", order).double()
    wanted = ffam(q, k, v, FRAMES, side, side, 2, "average", attend)
    torch.testing.assert_close(target_row(call, "out", order).double(), wanted, rtol=0, atol=2e-5)


def test_what_another_node_adds_to_the_prompts_attention_stays(pack, tuned, inversion, control, edit):
    from comfy.ldm.modules.attention import optimized_attention

    added = lambda q: 0.3 * q.roll(1, dims=1)

    def adapter(q, k, v, extra_options):
        return optimized_attention(q, k, v, extra_options["n_heads"]) + added(q)

    patched = tuned.clone()
    patched.set_model_attn2_replace(adapter, "middle", 0, None)
    block = next(
        block
        for block in pack("host.unet").transformer_blocks(tuned.model.diffusion_model)
        if block.place == ("middle", 0)
    )
    wanted = control(cross_replace=1.0)
    with Spy(block.module.attn2) as spy:
        edit(patched, inversion, wanted, cfg=1.0)
    source, call = spy.calls[:2]
    maps = attention_weights(source["to_q"], source["to_k"], block.heads) @ wanted.tokens.matrix.double()
    expected = weighted(maps, call["to_v"]) + added(call["to_q"]).double()
    torch.testing.assert_close(call["out"].double(), expected, rtol=0, atol=2e-5)
