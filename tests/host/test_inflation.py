"""The inflated UNet against the host's own, on the real UNet of the miniature."""

from __future__ import annotations

import pytest
import torch

from benchmarks.stable_diffusion import UNETS

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]

OPTIONS = [  # the defaults are EI²
    {},
    {"coarse_factor": 1},
    {"coarse_factor": 4},
    {"coarse_pool": "stride"},
    {"spatial": "sca"},
    {"spatial": "first_frame"},
    {"spatial": "dense"},
    {"spatial": "dense_sca"},
    {"spatial": "none"},
    {"temporal": "attention"},
    {"temporal": "none"},
    {"centering": "frames_space"},
    {"centering": "channels"},
    {"centering": "layer_norm"},
    {"normalization": "off"},
    {"normalization_scope": "vo"},
    {"position": "after_spatial"},
    {"position": "after_spatial", "temporal": "attention"},
    {"group_norm": "video"},
]
NAMES = [" ".join(f"{key}={value}" for key, value in options.items()) or "EI2" for options in OPTIONS]


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


@pytest.mark.parametrize("options", OPTIONS, ids=NAMES)
def test_one_untuned_frame_is_the_hosts_picture(options, model, inflate, evaluate, source, random_clip):
    frame = random_clip(frames=1)
    assert difference(evaluate(inflate(model, **options), frame, source), evaluate(model, frame, source)) <= 1e-5


@pytest.mark.parametrize("preset", ["EI2", "Per-frame"])
def test_one_untuned_frame_is_the_hosts_picture_bit_for_bit(preset, model, inflate, evaluate, source, random_clip):
    frame = random_clip(frames=1)
    assert torch.equal(evaluate(inflate(model, preset), frame, source), evaluate(model, frame, source))


@pytest.mark.parametrize(
    "temporal, position",
    [
        ("stam", "after_feed_forward"),
        ("stam", "after_spatial"),
        ("attention", "after_feed_forward"),
        ("attention", "after_spatial"),
        ("none", "after_feed_forward"),
    ],
)
def test_untuned_frames_without_spatial_exchange_are_the_hosts(
    temporal, position, model, inflate, evaluate, source, random_clip
):
    inflated = inflate(model, spatial="none", temporal=temporal, position=position)
    clip = random_clip(frames=4)
    assert torch.equal(evaluate(inflated, clip, source), evaluate(model, clip, source))


def test_strict_normalization_changes_even_the_untuned_model(model, inflate, evaluate, source, random_clip):
    clip = random_clip()
    strict = evaluate(inflate(model, normalization="strict"), clip, source)
    assert torch.isfinite(strict).all()
    assert difference(strict, evaluate(inflate(model), clip, source)) > 1e-3


@pytest.mark.parametrize(
    "options, seen",
    [
        ({}, True),
        ({"group_norm": "video"}, True),
        ({"spatial": "none", "group_norm": "video"}, True),
        ({"spatial": "none"}, False),
    ],
)
def test_which_frames_see_each_other(options, seen, model, inflate, evaluate, source, random_clip):
    inflated, clip = inflate(model, **options), random_clip(frames=3)
    other = clip.clone()
    other[0] = random_clip(frames=1, seed=9)[0]
    change = difference(evaluate(inflated, clip, source)[1:], evaluate(inflated, other, source)[1:])
    assert (change > 1e-4) == seen and (seen or change <= 1e-5)


@pytest.mark.parametrize("position", ["after_feed_forward", "after_spatial"])
@pytest.mark.parametrize("tuned", [False, True])
def test_permuting_frames_permutes_the_output(tuned, position, model, inflate, tune, evaluate, source, random_clip):
    inflated, clip = inflate(model, position=position), random_clip(frames=4)
    if tuned:
        inflated, _ = tune(inflated, clip, steps=4, learning_rate=1e-2)
    order = torch.tensor([2, 0, 3, 1])
    assert difference(evaluate(inflated, clip[order], source), evaluate(inflated, clip, source)[order]) <= 1e-4


def test_sca_depends_on_the_order_of_frames(model, inflate, evaluate, source, random_clip):
    inflated, clip = inflate(model, spatial="sca"), random_clip(frames=4)
    order = torch.tensor([2, 0, 3, 1])
    assert difference(evaluate(inflated, clip[order], source), evaluate(inflated, clip, source)[order]) > 1e-3


@pytest.mark.parametrize("preset", ["EI2", "Tune-A-Video"])
def test_videos_in_one_call_and_in_several_agree(preset, model, inflate, tune, evaluate, encode, random_clip):
    """The host puts prompts into one call while memory lasts: one, two or three videos in a batch."""
    from comfy.patcher_extension import WrappersMP

    clip = random_clip(frames=3)
    tuned, _ = tune(inflate(model, preset), clip, steps=3, learning_rate=1e-2)
    chunks = []

    def count(executor, *args, **kwargs):
        options = kwargs.get("transformer_options") or args[5]
        chunks.append(len(options["cond_or_uncond"]))
        return executor(*args, **kwargs)

    tuned.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "count", count)
    first, second = encode("a red circle on a striped blue background"), encode("a green star on a plain background")
    empty = encode("")
    alone = [evaluate(tuned, clip, prompt) for prompt in (first, second, empty)]
    assert chunks == [1, 1, 1]
    guided = evaluate(tuned, clip, first, empty, cfg=3.0)
    mixed = evaluate(tuned, clip, first + second, empty, cfg=3.0)
    assert chunks[3:] == [2, 3]
    assert difference(guided, alone[2] + 3 * (alone[0] - alone[2])) <= 1e-4
    assert difference(mixed, alone[2] + 3 * ((alone[0] + alone[1]) / 2 - alone[2])) <= 1e-4
    assert difference(alone[0], alone[1]) > 1e-3  # the prompts do matter


def test_a_prompt_per_frame(model, inflate, evaluate, encode, random_clip):
    texts = ["a red circle on a blue background", "a green star on a white background"]
    clip, prompts = random_clip(frames=2), [encode(text) for text in texts]
    both = [[torch.cat([prompt[0][0] for prompt in prompts]), {}]]
    inflated = inflate(model, "Per-frame")
    result = evaluate(inflated, clip, both)
    for i in range(2):
        assert difference(result[i : i + 1], evaluate(model, clip[i : i + 1], prompts[i])) <= 1e-4
    assert torch.isfinite(evaluate(inflate(model), clip, both)).all()


@pytest.mark.parametrize("group_norm", ["video", "frame"])
def test_which_group_norms_are_joint(group_norm, model, inflate, evaluate, source, random_clip):
    """Those of the ResBlocks and the last one; those at a transformer's entry stay per frame."""
    from comfy.patcher_extension import WrappersMP

    inflated, shapes = inflate(model, group_norm=group_norm), {}

    def look(executor, *args, **kwargs):  # runs inside the inflation's own wrapper
        norms = [(n, m) for n, m in executor.class_obj.named_modules() if isinstance(m, torch.nn.GroupNorm)]
        see = lambda name: lambda _, inputs: shapes.__setitem__(name, tuple(inputs[0].shape))
        handles = [norm.register_forward_pre_hook(see(name)) for name, norm in norms]
        try:
            return executor(*args, **kwargs)
        finally:
            for handle in handles:
                handle.remove()

    inflated.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "look", look)
    evaluate(inflated, random_clip(frames=3), source)
    joint = {name for name, shape in shapes.items() if shape[0] == 1}
    expected = {name for name in shapes if name == "out.0" or name.endswith(("in_layers.0", "out_layers.0"))}
    assert joint == (expected if group_norm == "video" else set())
    assert len(expected) == 2 * 8 + 1 and len(shapes) == len(expected) + 7
    assert {shape[0] for name, shape in shapes.items() if name not in joint} == {3}
    assert shapes["out.0"] == ((1, 96, 18, 10) if group_norm == "video" else (3, 96, 6, 10))


def inflation_parts(model) -> tuple[int, int, int]:
    """How many wrappers, additional models and patched weights a MODEL carries."""
    from comfy.patcher_extension import WrappersMP

    wrappers = model.get_all_wrappers(WrappersMP.DIFFUSION_MODEL)
    return len(wrappers), len(model.get_nested_additional_models()), len(model.patches)


@pytest.mark.parametrize("first", ["EI2", "Tune-A-Video", "Per-frame"])
@pytest.mark.parametrize("second", ["EI2", "Tune-A-Video", "Per-frame"])
def test_inflating_again_replaces(first, second, model, inflate, evaluate, source, random_clip):
    clip = random_clip()
    fresh, again = inflate(model, second), inflate(inflate(model, first), second)
    assert inflation_parts(again) == inflation_parts(fresh) == (1, 0 if second == "Per-frame" else 1, 0)
    assert torch.equal(evaluate(again, clip, source), evaluate(fresh, clip, source))


def test_inflating_a_tuned_model_drops_its_tuning(model, inflate, tune, evaluate, source, random_clip):
    clip, fresh = random_clip(), inflate(model)
    tuned, _ = tune(fresh, clip, learning_rate=1e-2)
    assert inflation_parts(tuned) == (1, 1, 14)
    tuned_output = evaluate(tuned, clip, source)
    again = inflate(tuned)
    assert inflation_parts(again) == (1, 1, 0)
    assert torch.equal(evaluate(again, clip, source), evaluate(fresh, clip, source))
    assert torch.equal(evaluate(tuned, clip, source), tuned_output)  # and the tuned one still is what it was


def test_inflating_a_tuned_model_keeps_other_patches(model, inflate, tune, evaluate, source, random_clip):
    clip, patched = random_clip(), model.clone()
    key = next(key for key in model.model_state_dict() if key.endswith("attn1.to_q.weight"))
    delta = torch.full_like(model.model_state_dict()[key], 0.05)
    patched.add_patches({key: ("diff", (delta,))})
    fresh = evaluate(inflate(patched), clip, source)
    tuned, _ = tune(inflate(patched), clip, learning_rate=1e-2)
    assert torch.equal(evaluate(inflate(tuned), clip, source), fresh)
    assert difference(fresh, evaluate(inflate(model), clip, source)) > 1e-4


def test_the_modules_fit_the_unet(model, inflate, pack):
    """The miniature: a block in each level going down, the middle, and two a level going up; heads 32 wide."""
    inflation = pack("host.inflation").inflation_of(inflate(model))
    sizes = {name: (module.to_q.weight.shape[0], module.heads) for name, module in inflation.stack.items()}
    assert sorted(sizes.values()) == sorted([(96, 3)] * 3 + [(192, 6)] * 4), sizes


def test_another_nodes_self_attention_is_respected(model, inflate, evaluate, source, random_clip, caplog):
    """Where a replacement is in place already, it stays, and the user hears of it once."""
    used = []

    def replacement(q, k, v, extra_options):
        used.append(k.shape[1])
        from comfy.ldm.modules.attention import optimized_attention

        return optimized_attention(q, k, v, extra_options["n_heads"])

    other, clip = model.clone(), random_clip()
    other.set_model_attn1_replace(replacement, "middle", 0, 0)
    inflated = inflate(other)
    with caplog.at_level("WARNING"):
        evaluate(inflated, clip, source)
        evaluate(inflated, clip, source)
    assert used == [15, 15]  # 3 x 5 tokens: its own frame only
    said = "replaces the self-attention of 1 of 7 blocks (middle_block"
    assert len([record for record in caplog.records if said in record.message]) == 1


def test_the_middle_patch_of_another_node_still_runs(model, inflate, tune, evaluate, source, random_clip):
    clip = random_clip()
    tuned, _ = tune(inflate(model, position="after_spatial"), clip, learning_rate=1e-2)
    patched, calls = tuned.clone(), []
    patched.set_model_patch(lambda x, options: calls.append(options["block"]) or x, "middle_patch")
    assert torch.equal(evaluate(patched, clip, source), evaluate(tuned, clip, source))
    assert ("middle", 0) in calls


DENSE = {
    "miniature": {("input", 1, 0), ("middle", 0, 0), ("output", 0, 0)},
    "sd15": {("input", 1, 0), ("middle", 0, 0), ("output", 3, 0)},
    "sdxl": {("input", 4, 0), ("middle", 0, 0), ("output", 0, 0)},
}


@pytest.mark.parametrize("name", DENSE)
def test_where_vid2vid_zero_attends_densely(name, model, inflate, pack):
    """By the queries and keys that reach the host's attention: all frames in three blocks, two frames in the others."""
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from comfy.patcher_extension import WrappersMP

    unet, frames, seen = model.model.diffusion_model, 3, {}
    if name in UNETS:
        with torch.device("meta"):  # shapes without numbers
            unet = UNetModel(**UNETS[name], operations=comfy.ops.disable_weight_init)
    blocks = pack("host.unet").transformer_blocks(unet)

    def look(attend, q, k, v, *args, transformer_options, **kwargs):
        place = (*transformer_options["block"], transformer_options["block_index"])
        seen.setdefault(place, (*q.shape[:2], k.shape[1]))  # self-attention comes first
        return torch.empty_like(q)

    device = next(unet.parameters()).device
    context = blocks[0].module.attn2.to_k.weight.shape[1]
    inflated = pack("host.inflation").inflation_of(inflate(model, "Vid2Vid-zero"))
    options = {
        "cond_or_uncond": [0],
        "optimized_attention_override": look,
        "wrappers": {WrappersMP.DIFFUSION_MODEL: {"EI2": [inflated]}},
    }
    x, text = torch.zeros(frames, 4, 16, 16, device=device), torch.zeros(frames, 77, context, device=device)
    y = torch.zeros(frames, 2816, device=device) if name == "sdxl" else None
    with torch.enable_grad():  # without, it would be compared whether the frames share a text, which nothing holds here
        unet(x, torch.zeros(frames, device=device), text, y, transformer_options=options)

    assert len(seen) == len(blocks) == {"miniature": 7, "sd15": 16, "sdxl": 70}[name]
    dense = {place for place, (rows, queries, keys) in seen.items() if rows == 1 and queries == keys}
    sca = {place for place, (rows, queries, keys) in seen.items() if rows == frames and keys == 2 * queries}
    assert dense == DENSE[name] and dense | sca == set(seen)
