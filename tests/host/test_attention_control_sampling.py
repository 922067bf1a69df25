"""Sampling under attention control: what source and edit become, what is refused, and that no trace stays."""

from __future__ import annotations

from dataclasses import replace
from inspect import signature

import pytest
import torch

from . import controlled_edit
from .controlled_edit import FRAMES, LONGER, SOURCE, STEPS, TARGET

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]

control, edit = controlled_edit.control, controlled_edit.edit
tuned, inversion = controlled_edit.tuned, controlled_edit.inversion


@pytest.fixture(scope="module")
def plain(pack, encode):
    """Sampling without control."""

    def plain(model, inversion, prompt, cfg=5.0):
        return pack("host.sampling").sample(model, inversion.noise, encode(prompt), encode(""), cfg, inversion.sigmas)

    return plain


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


def test_what_shapes_only_the_edit_leaves_the_source_alone(pack, tuned, inversion, control, encode, edit):
    """A LoRA hooked to positive."""
    import comfy.hooks

    weights = tuned.model.state_dict()
    name = next(name for name in weights if name.endswith("attn2.to_v.weight"))
    patch = {name: ("diff", (torch.ones_like(weights[name]),))}
    found = control()
    hook = comfy.hooks.WeightHook(1.0, 0.0)
    hook.weights, hook.weights_clip, hook.need_weight_init = patch, None, False
    group = comfy.hooks.HookGroup()
    group.add(hook)
    hooked = comfy.hooks.set_hooks_for_conditioning(found.target_conditioning, group)
    guided = tuned, inversion.noise, inversion, found, hooked, encode(""), 5.0
    result, without = pack("host.controlled_sampling").sample_controlled(*guided), edit(tuned, inversion, found)
    torch.testing.assert_close(result.source, without.source, rtol=0, atol=1e-5)
    assert (result.target - without.target).abs().max() > 1e-2


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
    torch.testing.assert_close(apart.target, together.target, rtol=0, atol=5e-4)
    torch.testing.assert_close(apart.maps, together.maps, rtol=0, atol=1e-5)


def test_prompts_of_other_lengths_beside_it(tuned, inversion, control, edit):
    """The host repeats the shorter prompt's tokens until both lengths agree."""
    wanted = control(cross_replace=1.0, self_replace=0.5)
    long = "dark, " * 60  # two windows of the text encoder
    found = edit(tuned, inversion, wanted, negative=long)
    split = tuned.clone()
    split.model_options["disable_cfg1_optimization"] = True  # the source gets its negative chunk, too
    torch.testing.assert_close(edit(split, inversion, wanted, negative=long).target, found.target, rtol=0, atol=5e-4)


def test_outside_the_blended_words_the_source_stays(tuned, inversion, control, edit):
    words = {"blend_source": "square", "blend_target": "circle", "blend_start": 0.0}
    blended = control(**words, blend_threshold=0.95)
    nothing = replace(blended, blend=replace(blended.blend, threshold=1.0))  # no map exceeds its own maximum
    nowhere = edit(tuned, inversion, nothing)
    torch.testing.assert_close(nowhere.target, nowhere.source, rtol=0, atol=0)
    some = edit(tuned, inversion, blended)
    kept = (some.target == some.source).all(dim=1).float().mean()
    assert 0.05 < kept < 0.95


def test_the_host_makes_room_for_one_video(tuned, inversion, control, edit, monkeypatch):
    """Source and target run one after the other."""
    import comfy.sampler_helpers

    inner, asked = comfy.sampler_helpers._prepare_sampling, []
    watch = lambda model, shape, *args, **kwargs: asked.append(shape[0]) or inner(model, shape, *args, **kwargs)
    monkeypatch.setattr(comfy.sampler_helpers, "_prepare_sampling", watch)
    edit(tuned, inversion, control())
    assert asked == [FRAMES]


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


def test_boxes_for_words_reach_the_edit_alone(tuned, inversion, control, pack, encode):
    """GLIGEN, of which only the host's side is real: its layers here add a number to the tokens."""
    import comfy.model_patcher

    class Boxes(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def set_position(self, shape, boxes, device):
            return lambda x, options: x + 0.5

        def set_empty(self, shape, device):
            return lambda x, options: x

    cpu, guide = torch.device("cpu"), control(cross_replace=0.5)
    boxes = comfy.model_patcher.ModelPatcher(Boxes(), cpu, cpu)
    text, options = guide.target_conditioning[0]
    boxed = [[text, {**options, "gligen": ("position", boxes, [(torch.zeros(1, 8), 4, 4, 0, 0)])}]]
    sample = pack("host.controlled_sampling").sample_controlled
    run = lambda positive: sample(tuned, inversion.noise, inversion, guide, positive, encode(""), 4.0)
    plain, found = run(guide.target_conditioning), run(boxed)
    assert torch.equal(found.source, plain.source) and not torch.allclose(found.target, plain.target, atol=1e-2)


def test_both_negatives_are_called_so(tuned, inversion, control, edit, monkeypatch):
    """The SDXL refiner has another aesthetic score for negative prompts."""
    conds, told = tuned.model.extra_conds, []

    def watch(**given):
        told.append(given["prompt_type"])
        return conds(**given)

    monkeypatch.setattr(tuned.model, "extra_conds", watch)
    edit(tuned, inversion, control())
    assert sorted(told) == ["negative", "negative", "positive", "source"]


def test_a_compiled_model_is_controlled_in_every_step(tuned, inversion, control, edit):
    """Newer hosts compile without looking at the options that change from step to step."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    static = {"disable_dynamic": True} if "disable_dynamic" in signature(type(tuned).clone).parameters else {}
    model, guide = tuned.clone(**static), control(cross_replace=0.5)
    blind = lambda guards: [
        "transformer_options" not in guard.name for guard in guards
    ]  # as nodes_torch_compile has it
    set_torch_compile_wrapper(model=model, backend="eager", options={"guard_filter_fn": blind})
    expected, found = (edit(one, inversion, guide) for one in (tuned, model))
    torch.testing.assert_close(found.source, expected.source, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.target, expected.target, atol=1e-5, rtol=1e-5)
