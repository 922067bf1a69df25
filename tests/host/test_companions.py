"""Other nodes on the same MODEL, put on before the inflation or after the tuning: tuned, inverted and edited with.

Each has its effect (or none, where it cannot), and where the frames' attention steps aside the user hears of it once.
"""

from __future__ import annotations

import logging
from collections import namedtuple

import pytest
import torch

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]

PATH = "lora_unet_input_blocks_1_1_transformer_blocks_0_"
TAKEN, TOKENS = "replaces the self-attention of {} of 7 blocks", "changes the number of tokens"
# what it changes: the inversion's noise and the edit, the edit alone, or nothing; the one warning
Companion = namedtuple("Companion", "apply changes warning", defaults=("noise edit", None))


def node(module: str, name: str, *arguments):
    """`apply(model)` for one of the host's own nodes."""
    return lambda model, host_node: host_node(module, name, model, *arguments)[0]


def lora(model, _):
    """By the host's own loader, on projections that are tuned and others."""
    import comfy.sd

    generator, state = torch.Generator().manual_seed(0), {}
    for layer, width in (("attn1_to_q", 96), ("attn1_to_k", 96), ("attn2_to_q", 96), ("attn2_to_v", 128)):
        state[f"{PATH}{layer}.lora_up.weight"] = 0.3 * torch.randn(96, 4, generator=generator)
        state[f"{PATH}{layer}.lora_down.weight"] = 0.3 * torch.randn(4, width, generator=generator)
        state[f"{PATH}{layer}.alpha"] = torch.tensor(4.0)
    patched = comfy.sd.load_lora_for_models(model, None, state, 1.0, 0.0)[0]
    assert len(patched.patches) - len(model.patches) in (2, 4)  # the tuned model has patches on two of them already
    return patched


def merged(name: str, *arguments, **options):
    """One of the host's merges, with a model whose weights are a little larger."""

    def apply(model, _):
        from comfy_extras import nodes_model_merging

        other = model.clone()
        for key, weight in model.model_state_dict("diffusion_model.").items():
            other.add_patches({key: ("diff", (0.05 * weight,))})
        return getattr(nodes_model_merging, name)().merge(model, other, *arguments, **options)[0]

    return apply


def patched(setter: str, patch, *places):
    """A patch as other packs set it: `setter` of the host's ModelPatcher."""

    def apply(model, _):
        clone = model.clone()
        for place in places or [()]:
            getattr(clone, setter)(patch, *place)
        return clone

    return apply


def attend(q, k, v, options):
    from comfy.ldm.modules.attention import optimized_attention

    return optimized_attention(q, k, v, options["n_heads"])


def picture(width: int, batch: int) -> torch.Tensor:
    """Four tokens of a picture prompt, the same for all frames."""
    return torch.randn(1, 4, width, generator=torch.Generator().manual_seed(width)).expand(batch, -1, -1)


def with_picture(n, context, value, options):
    """An IP-Adapter in the way of a patch: more tokens for the cross-attention."""
    tokens = picture(context.shape[-1], len(context))
    return n, torch.cat([context, tokens], dim=1), torch.cat([value, tokens], dim=1)


def beside_picture(q, k, v, options):
    """An IP-Adapter in the way of a replacement: a second cross-attention, added."""
    tokens = picture(q.shape[-1], len(q))
    return attend(q, k, v, options) + attend(q, tokens, tokens, options)


def longer(n, context, value, options):
    """Self-attention with more keys, as reference-only control has."""
    return n, torch.cat([context, 0.5 * context], dim=1), torch.cat([value, 0.5 * value], dim=1)


CROSS = [("input", 1), ("input", 4), ("middle", 0), ("output", 0), ("output", 2)]
SELF = [("input", 1, 0), ("middle", 0)]  # a block by its number, and all of a transformer
COMPANIONS = {
    "LoRA": Companion(lora),
    "model merging": Companion(merged("ModelMergeSimple", 0.5)),
    "model merging by blocks": Companion(merged("ModelMergeBlocks", input=0.3, middle=0.5, out=0.9)),
    "IP-Adapter as attn2 patch": Companion(patched("set_model_attn2_patch", with_picture)),
    "IP-Adapter as attn2 replacement": Companion(patched("set_model_attn2_replace", beside_picture, *CROSS)),
    "attn1 patch": Companion(patched("set_model_attn1_patch", lambda n, k, v, options: (n, 1.1 * k, 1.1 * v))),
    "attn1 patch, more keys": Companion(patched("set_model_attn1_patch", longer), warning=TOKENS),
    "attn1 output patch": Companion(patched("set_model_attn1_output_patch", lambda n, options: 1.1 * n)),
    "attn1 replacement": Companion(
        patched("set_model_attn1_replace", lambda q, k, v, options: attend(q, k, 0.5 * v, options), *SELF),
        warning=TAKEN.format(2),
    ),
    "FreeU": Companion(node("nodes_freelunch", "FreeU", 1.1, 1.2, 0.9, 0.2)),
    "FreeU_V2": Companion(node("nodes_freelunch", "FreeU_V2", 1.3, 1.4, 0.9, 0.2)),
    "Deep Shrink": Companion(
        node("nodes_model_downscale", "PatchModelAddDownscale", 1, 2.0, 0.0, 1.0, True, "bicubic", "bicubic")
    ),
    "HyperTile": Companion(node("nodes_hypertile", "HyperTile", 32, 1, 0, False), warning=TOKENS),
    "ToMe": Companion(node("nodes_tomesd", "TomePatchModel", 0.3), warning=TOKENS),
    "PAG": Companion(node("nodes_pag", "PerturbedAttentionGuidance", 3.0), "edit", TAKEN.format(1)),
    "SAG": Companion(node("nodes_sag", "SelfAttentionGuidance", 0.5, 2.0), warning=TAKEN.format(1)),
    "RescaleCFG": Companion(node("nodes_model_advanced", "RescaleCFG", 0.7), "edit"),
    "DifferentialDiffusion": Companion(node("nodes_differential_diffusion", "DifferentialDiffusion"), "nothing"),
    "EasyCache": Companion(node("nodes_easycache", "EasyCacheNode", 99.0, 0.0, 1.0, False)),
    "LazyCache": Companion(node("nodes_easycache", "LazyCacheNode", 99.0, 0.0, 1.0, False)),
}
Flow = namedtuple("Flow", "tune noise edit meets")


@pytest.fixture(scope="module")
def flow(pack, inflate, tune, evaluate, encode, source, random_clip):
    """Tunes unless it is done, inverts, edits: `flow(model, result=None)` -> Flow. `meets`: how much a frame depends on
    the other one."""
    clip, other = random_clip(2, 8, 8), random_clip(2, 8, 8)
    other[0] = random_clip(1, 8, 8, seed=9)[0]
    target, empty = encode("a red circle on a dotted white background"), encode("")
    invert, sample = pack("nodes.invert").Invert, pack("nodes.edit_sample").EditSample

    def flow(model, result=None, prompts=(source, target, empty), checkpointing="off"):
        if result is None:
            model, result = tune(model, clip, prompts[0], learning_rate=1e-2, checkpointing=checkpointing)
        inversion = invert.execute(model, {"samples": clip}, prompts[0], 3, 0).args[0]
        edit = sample.execute(model, inversion, prompts[1], prompts[2], 4.0).args[0]["samples"]
        assert torch.isfinite(inversion.noise).all() and torch.isfinite(edit).all()
        torch.manual_seed(0)  # ToMe draws
        first = evaluate(model, clip, prompts[0])
        torch.manual_seed(0)
        meets = (first - evaluate(model, other, prompts[0]))[1].abs().max()
        return Flow(result, inversion.noise, edit, float(meets))

    return flow


@pytest.fixture(scope="module")
def tuned(model, inflate, tune, random_clip):
    with torch.inference_mode():
        return tune(inflate(model, "EI2"), random_clip(2, 8, 8), learning_rate=1e-2)


@pytest.fixture(scope="module")
def alone(tuned, flow):
    """Without any companion."""
    with torch.inference_mode():
        return flow(*tuned)


def check(companion: Companion, found: Flow, alone: Flow, warnings: list[str]) -> None:
    for name, value, expected in (("noise", found.noise, alone.noise), ("edit", found.edit, alone.edit)):
        difference = float((value - expected).abs().max())
        assert difference > 1e-2 if name in companion.changes else difference <= 1e-4, (name, difference)
    assert found.meets > 1e-3
    assert len(warnings) == (1 if companion.warning else 0), warnings
    assert not companion.warning or companion.warning in warnings[0]


@pytest.fixture
def warnings(caplog):
    """What the pack has warned of so far."""
    caplog.set_level(logging.WARNING)
    return lambda: [r.getMessage() for r in caplog.records if r.getMessage().startswith("EI2")]


@pytest.fixture
def works_by_itself(model, host_node, pack, source, encode, random_clip):
    """Skips where the host's own node fails without this pack: EasyCache with two pictures, up to 0.3.64 at least."""

    def works_by_itself(name: str) -> None:
        if name == "EasyCache":
            patched, sigmas = COMPANIONS[name].apply(model, host_node), torch.tensor([3.0, 2.0, 1.0, 0.0])
            try:
                pack("host.sampling").sample(patched, random_clip(2, 8, 8), source, encode(""), 4.0, sigmas)
            except RuntimeError as error:
                pytest.skip(f"this host's {name} fails with two pictures: {error}")

    return works_by_itself


@pytest.mark.parametrize("name", COMPANIONS)
def test_put_on_before_the_inflation(name, model, inflate, flow, alone, warnings, host_node, works_by_itself):
    works_by_itself(name)
    companion = COMPANIONS[name]
    found = flow(inflate(companion.apply(model, host_node), "EI2"))
    check(companion, found, alone, warnings())
    in_force = "noise" in companion.changes and "Cache" not in name  # while tuning, caches and guidance are off
    assert (found.tune.losses != alone.tune.losses) == in_force


@pytest.mark.parametrize("name", COMPANIONS)
def test_put_on_after_the_tuning(name, model, inflate, flow, tuned, alone, warnings, pack, host_node, works_by_itself):
    works_by_itself(name)
    companion, (_, result) = COMPANIONS[name], tuned
    fresh = pack("host.inflation").apply_tune(inflate(model, "EI2"), result)  # has warned of nothing yet
    check(companion, flow(companion.apply(fresh, host_node), result), alone, warnings())


@pytest.mark.parametrize("name", ["LoRA", "IP-Adapter as attn2 patch", "FreeU_V2", "HyperTile", "SAG", "EasyCache"])
def test_tuned_with_checkpointing(name, model, inflate, tune, random_clip, host_node):
    inflated = inflate(COMPANIONS[name].apply(model, host_node), "EI2")
    (_, off), (_, on) = (tune(inflated, random_clip(2, 8, 8), steps=3, checkpointing=c) for c in ("off", "on"))
    assert on.losses == pytest.approx(off.losses, abs=1e-5)


@pytest.mark.parametrize("name", ["FreeU_V2", "SAG", "PAG", "RescaleCFG", "HyperTile", "EasyCache"])
def test_null_text_beside_it(name, tuned, pack, source, encode, random_clip, host_node):
    model = COMPANIONS[name].apply(tuned[0], host_node)
    inversion = (
        pack("nodes.invert")
        .Invert.execute(
            model, {"samples": random_clip(2, 8, 8)}, source, 3, 0, null_text=True, null_inner_steps=2, empty=encode("")
        )
        .args[0]
    )
    assert torch.isfinite(inversion.unconditional).all()
    assert (inversion.unconditional - encode("")[0][0]).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["PAG", "SAG", "RescaleCFG"])
def test_attention_control_gives_the_source_back_in_spite_of_it(
    name, tuned, pack, miniature, source, random_clip, host_node
):
    """The source's branch retraces the inversion, where other nodes' guidance was off; the edit's is guided by it."""
    sources, edits = [], []
    control = pack("nodes.attention_control").AttentionControl
    options = {one.id: getattr(one, "default", None) for one in control.define_schema().inputs} | {
        "clip": miniature[1],
        "source_prompt": "a blue square on a dotted white background",
        "target_prompt": "a red circle on a dotted white background",
    }
    made = control.execute(**options).args[0]
    empty = miniature[1].encode_from_tokens_scheduled(miniature[1].tokenize(""))
    for model in (tuned[0], COMPANIONS[name].apply(tuned[0], host_node)):
        plain = tuned[0] if name != "SAG" else model  # SAG's replacement of the middle block stays in force
        inversion = pack("nodes.invert").Invert.execute(plain, {"samples": random_clip(2, 8, 8)}, source, 3, 0).args[0]
        found = pack("host.controlled_sampling").sample_controlled(
            model, inversion.noise, inversion, made, made.target_conditioning, empty, 4.0
        )
        sources.append(found.source)
        edits.append(found.target)
    assert (edits[0] - edits[1]).abs().max() > 1e-2
    if name != "SAG":
        assert (sources[0] - sources[1]).abs().max() <= 1e-4
    assert torch.isfinite(sources[1]).all()


def test_two_kinds_of_stepping_aside_are_two_warnings(model, inflate, flow, warnings, host_node):
    flow(inflate(COMPANIONS["PAG"].apply(COMPANIONS["ToMe"].apply(model, host_node), host_node), "EI2"))
    assert [TOKENS in warnings()[0], TAKEN.format(1) in warnings()[1]] == [True, True] and len(warnings()) == 2


def test_perturbed_attention_sees_its_own_frame_only(pack, tuned, encode, source, random_clip):
    """PAG's replacement gets keys and values of a frame's own length."""
    from comfy.model_patcher import set_model_options_patch_replace
    from comfy.samplers import CFGGuider, calc_cond_batch, sampler_object

    seen, model = [], tuned[0].clone()

    def perturb(args):
        def values(q, k, v, options):
            seen.append((q.shape, k.shape, v.shape))
            return v

        options = set_model_options_patch_replace(args["model_options"].copy(), values, "attn1", "middle", 0)
        calc_cond_batch(args["model"], [args["cond"]], args["input"], args["sigma"], options)
        return args["denoised"]

    model.set_model_sampler_post_cfg_function(perturb)
    guider, clip = CFGGuider(model), random_clip(2, 8, 8)
    guider.set_conds(source, encode(""))
    guider.set_cfg(3.0)
    sigmas = torch.tensor([3.0, 1.0])
    guider.sample(torch.zeros_like(clip), clip, sampler_object("ddim"), sigmas, disable_pbar=True, seed=0)
    assert seen == [(torch.Size([2, 16, 192]),) * 3]


def test_a_controlnet(model, inflate, flow, alone, control_net, source, encode, warnings):
    """Its picture steers every frame, while tuning, inverting and editing."""
    prompts = [encode("a red circle on a dotted white background"), encode("")]
    steered = control_net[1](source, prompts[0])
    found = flow(inflate(model, "EI2"), None, (*steered, prompts[1]))
    check(Companion(None), found, alone, warnings())
    assert found.tune.losses != alone.tune.losses


def test_another_packs_own_forward_of_a_block_stays(model, inflate, tune, random_clip):
    """Checkpointing puts its own in its place for a call, and puts back what was there."""
    block = model.model.diffusion_model.middle_block[1].transformer_blocks[0]
    plain, calls = block.forward, []

    def theirs(*args, **kwargs):
        calls.append(1)
        return plain(*args, **kwargs)

    block.forward = theirs
    try:
        tune(inflate(model), random_clip(2, 8, 8), steps=2, checkpointing="on")
        assert vars(block)["forward"] is theirs and calls
    finally:
        del block.forward
    tune(inflate(model), random_clip(2, 8, 8), steps=1, checkpointing="on")
    assert "forward" not in vars(block)
