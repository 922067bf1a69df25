"""Attention control in the host's sampling: against its formulas, beside other nodes, and without a trace."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch
from einops import rearrange

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]

SOURCE = "a blue square on a dotted white background"
TARGET = "a red circle on a dotted white background"
LONGER = "a big red circle on a dotted white background"
FRAMES, STEPS = 3, 4


@pytest.fixture(scope="module")
def control(pack, miniature):
    """What "EI2 Attention Control" makes: `control(target, cross_replace=1.0, ...)`."""

    def control(target=TARGET, **options):
        node = pack("nodes.attention_control").AttentionControl
        defaults = {one.id: getattr(one, "default", None) for one in node.define_schema().inputs}
        del defaults["clip"], defaults["source_prompt"], defaults["target_prompt"]
        options = {**defaults, "cross_replace": 0.0, "self_replace": 0.0, **options}
        return node.execute(clip=miniature[1], source_prompt=SOURCE, target_prompt=target, **options).args[0]

    return control


@pytest.fixture(scope="module")
def tuned(model, inflate, tune, random_clip):
    """A tuned EI² MODEL; its temporal modules do something."""
    with torch.inference_mode():
        return tune(inflate(model, "EI2"), random_clip(FRAMES, 8, 8), steps=3, learning_rate=3e-3)[0]


@pytest.fixture(scope="module")
def inversion(pack, tuned, random_clip, source):
    with torch.inference_mode():
        node, latent = pack("nodes.invert").Invert, {"samples": random_clip(FRAMES, 8, 8)}
        return node.execute(tuned, latent, source, STEPS, 0).args[0]


@pytest.fixture(scope="module")
def edit(pack, encode):
    """`edit(model, inversion, control, cfg)` -> ControlledSample."""

    def edit(model, inversion, control, cfg=5.0, negative=""):
        return pack("host.controlled_sampling").sample_controlled(
            model, inversion.noise, inversion, control, control.target_conditioning, encode(negative), cfg
        )

    return edit


@pytest.fixture(scope="module")
def plain(pack, encode):
    """Sampling without control."""

    def plain(model, inversion, prompt, cfg=5.0):
        return pack("host.sampling").sample(model, inversion.noise, encode(prompt), encode(""), cfg, inversion.sigmas)

    return plain


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


def test_the_own_sampler_is_the_hosts_ddim(pack, tuned, inversion, encode, plain):
    from comfy.samplers import KSAMPLER

    sampling = pack("host.sampling")
    guider = sampling.plain_guider(tuned, encode(TARGET), encode(""), 5.0)
    own = sampling.run(tuned, inversion.noise, guider, KSAMPLER(pack("ei2.ddim").sample_ddim), inversion.sigmas)
    torch.testing.assert_close(own, plain(tuned, inversion, TARGET), rtol=0, atol=1e-5)


def test_equal_prompts_and_guidance_give_the_source(tuned, inversion, control, edit, plain):
    found = edit(tuned, inversion, control(SOURCE, cross_replace=0.5, self_replace=0.5, self_maps="both"), cfg=1.0)
    torch.testing.assert_close(found.target, found.source, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.source, plain(tuned, inversion, SOURCE, 1.0), rtol=0, atol=1e-5)


def test_a_control_that_takes_nothing_is_the_plain_edit(tuned, inversion, control, edit, plain):
    found = edit(tuned, inversion, control())
    torch.testing.assert_close(found.target, plain(tuned, inversion, TARGET), rtol=0, atol=2e-5)
    torch.testing.assert_close(found.source, plain(tuned, inversion, SOURCE, 1.0), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"cross_replace": 1.0},
        {"target": LONGER, "cross_replace": 1.0},
        {"reweight": "circle: 3"},
        {"self_replace": 1.0},
        {"self_replace": 1.0, "self_maps": "spatial"},
        {"blend_source": "square", "blend_target": "circle", "blend_threshold": 0.9},
    ],
    ids=lambda options: ", ".join(map(str, options.values())),
)
def test_every_option_changes_the_target_alone(tuned, inversion, control, edit, plain, options):
    found = edit(tuned, inversion, control(**options))
    assert (found.target - plain(tuned, inversion, options.get("target", TARGET))).abs().max() > 1e-2
    torch.testing.assert_close(found.source, plain(tuned, inversion, SOURCE, 1.0), rtol=0, atol=1e-5)


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


def test_the_order_and_number_of_chunks_do_not_matter(pack, tuned, inversion, control, edit):
    import comfy.samplers

    def one_by_one_backwards(args):
        results = []
        for number, cond in reversed(list(enumerate(args["conds"]))):
            alone = [None] * number + [cond]
            out = comfy.samplers.calc_cond_batch(
                args["model"], alone, args["input"], args["sigma"], args["model_options"]
            )
            results.append(out[number])
        return results[::-1]

    wanted = control(
        LONGER, cross_replace=0.5, self_replace=0.5, self_maps="both", blend_source="square", blend_target="circle"
    )
    split = tuned.clone()
    split.model_options["sampler_calc_cond_batch_function"] = one_by_one_backwards
    together, apart = edit(tuned, inversion, wanted), edit(split, inversion, wanted)
    torch.testing.assert_close(apart.target, together.target, rtol=0, atol=2e-4)
    torch.testing.assert_close(apart.maps, together.maps, rtol=0, atol=1e-5)


def test_prompts_of_other_lengths_beside_it(tuned, inversion, control, edit):
    """The host repeats the shorter prompt's tokens until both lengths agree."""
    wanted = control(cross_replace=1.0, self_replace=0.5)
    long = "dark, " * 60  # two windows of the text encoder
    found = edit(tuned, inversion, wanted, negative=long)
    split = tuned.clone()
    split.model_options["disable_cfg1_optimization"] = True  # the source gets its negative chunk, too
    torch.testing.assert_close(edit(split, inversion, wanted, negative=long).target, found.target, rtol=0, atol=2e-4)


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


def test_outside_the_blended_words_the_source_stays(tuned, inversion, control, edit):
    words = {"blend_source": "square", "blend_target": "circle", "blend_start": 0.0}
    blended = control(**words, blend_threshold=0.95)
    nothing = replace(blended, blend=replace(blended.blend, threshold=1.0))  # no map exceeds its own maximum
    nowhere = edit(tuned, inversion, nothing)
    torch.testing.assert_close(nowhere.target, nowhere.source, rtol=0, atol=0)
    some = edit(tuned, inversion, blended)
    kept = (some.target == some.source).all(dim=1).float().mean()
    assert 0.05 < kept < 0.95


def test_nothing_is_left_behind(pack, tuned, inversion, control, edit, plain):
    before = plain(tuned, inversion, TARGET)
    weights = {name: value.clone() for name, value in tuned.model.state_dict().items()}
    edit(tuned, inversion, control(cross_replace=1.0, self_replace=1.0, self_maps="both"))
    assert torch.equal(plain(tuned, inversion, TARGET), before)
    assert all(torch.equal(value, weights[name]) for name, value in tuned.model.state_dict().items())
    stack = pack("host.inflation").require_inflation(tuned).stack
    for module in [*tuned.model.diffusion_model.modules(), *stack.modules()]:
        assert not module._forward_hooks and not module._forward_pre_hooks


def test_what_is_kept_does_not_grow_with_the_steps(pack, tuned, inversion, control, edit):
    """Each step begins with nothing of the step before but one sum of maps per branch."""
    from comfy.patcher_extension import WrappersMP

    key, held = pack("host.controlled_unet").BRANCH, []

    def weigh(executor, *args, **kwargs):
        options = kwargs.get("transformer_options") or args[5]
        (controlled,) = options["wrappers"][WrappersMP.DIFFUSION_MODEL][key]
        kept = [t for value in controlled.kept.values() for t in (value if isinstance(value, tuple) else (value,))]
        held.append((options[key].name, sum(t.numel() for t in kept)))
        return executor(*args, **kwargs)

    watched = tuned.clone()
    watched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "watch", weigh)
    edit(watched, inversion, control(cross_replace=1.0, self_replace=1.0, self_maps="both"))
    at_source, at_target = held[::2], held[1::2]
    assert at_source == [("source", 0)] * STEPS
    assert len(set(at_target)) == 1 and len(at_target) == STEPS and at_target[0][1] > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda positive, other: other, "not the target prompt"),
        (lambda positive, other: [*positive, *other], "one plain prompt"),
        (lambda positive, other: [[positive[0][0].expand(FRAMES, -1, -1), positive[0][1]]], "one plain prompt"),
        (lambda positive, other: [[positive[0][0], {**positive[0][1], "start_percent": 0.5}]], "has start_percent set"),
    ],
)
def test_other_prompts_are_refused(pack, tuned, inversion, control, encode, change, message):
    wanted = control(cross_replace=1.0)
    positive = change(wanted.target_conditioning, encode("a green heart"))
    with pytest.raises(ValueError, match=message):
        pack("host.controlled_sampling").sample_controlled(
            tuned, inversion.noise, inversion, wanted, positive, encode(""), 5.0
        )


@pytest.mark.parametrize("part", [{"area": (4, 4, 0, 0)}, {"mask": torch.ones(1, 64, 64), "set_area_to_bounds": True}])
def test_a_negative_for_a_part_of_the_picture_is_refused(pack, tuned, inversion, control, encode, part):
    """The host would run the positive prompt for that part once more."""
    wanted, negative = control(cross_replace=1.0), encode("")
    with pytest.raises(ValueError, match="negative covers only part of the picture"):
        pack("host.controlled_sampling").sample_controlled(
            tuned, inversion.noise, inversion, wanted, wanted.target_conditioning, [[negative[0][0], part]], 5.0
        )


def test_options_without_effect_are_refused(model, inflate, inversion, control, edit):
    frames = inflate(model, "Per-frame")
    with pytest.raises(ValueError, match="no temporal attention"):
        edit(frames, inversion, control(self_replace=0.5))
    with pytest.raises(ValueError, match="null_text"):
        edit(frames, inversion, control(unconditional="late"))
