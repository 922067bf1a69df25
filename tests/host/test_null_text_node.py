"""Null-text optimisation by EI2 Invert: guided sampling returns the clip, each step gets its own embedding."""

from __future__ import annotations

import pytest
import torch

from .calls import watched

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]

STEPS, INNER, GUIDANCE = 5, 6, 7.5


@pytest.fixture(scope="module")
def empty(encode):
    return encode("")


@pytest.fixture(scope="module")
def invert(invert):
    return lambda model, clip, positive, steps=STEPS, **inputs: invert(model, clip, positive, steps, **inputs)


@pytest.fixture(scope="module")
def sample(pack, source):
    """Guided sampling of an inversion with the source prompt."""
    sample = pack("host.sampling").sample
    return lambda model, inversion, negative, cfg=GUIDANCE, positive=source: sample(
        model, inversion.noise, positive, negative, cfg, inversion.sigmas
    )


@pytest.fixture(scope="module")
def tuned(model, inflate, tune, random_clip):
    with torch.inference_mode():
        return tune(inflate(model), random_clip(), steps=3, learning_rate=1e-2)[0]


@pytest.fixture(scope="module")
def rendered(pack, miniature):
    """Latents of two frames of a clip."""
    clips, scene = pack("miniature.clips"), pack("miniature.scene")
    with torch.inference_mode():
        return miniature[2].encode(scene.render(clips.square_clip()[:7:6]).movedim(1, -1))


@pytest.fixture(scope="module")
def optimized(model, inflate, invert, rendered, source, empty):
    """An inflated MODEL and the outputs of EI2 Invert with null-text optimisation."""
    with torch.inference_mode():
        inflated = inflate(model)
        return inflated, invert(inflated, rendered, source, null_text=True, null_inner_steps=INNER, empty=empty)


def test_guided_sampling_returns_the_clip(optimized, sample, rendered, empty):
    model, (inversion, _, _, negative) = optimized
    error = lambda negative, cfg=GUIDANCE: (sample(model, inversion, negative, cfg) - rendered).square().mean()
    decibels = 10 * torch.log10(error(empty) / error(negative))
    assert decibels > 5
    assert inversion.unconditional.shape == (STEPS, *empty[0][0].shape[1:])
    assert inversion.unconditional.dtype == torch.float32 and inversion.null_cfg == GUIDANCE
    assert torch.equal(inversion.empty, empty[0][0])


@pytest.mark.parametrize("first_step", [0, 3, STEPS])
@pytest.mark.parametrize("sampler", ["EI2", "euler", "dpmpp_2m"])
def test_each_step_gets_its_own_embedding(first_step, sampler, optimized, pack, sample, source, empty, host_node):
    from comfy.samplers import sampler_object

    model, (inversion, noise, sigmas, _) = optimized
    negative = pack("host.null_text").scheduled_negative(model, empty, inversion, first_step)
    clone, seen = watched(model)
    if sampler == "EI2":
        sample(clone, inversion, negative, 3.0)
    else:
        inputs = (clone, False, 1, 3.0, source, negative, sampler_object(sampler), sigmas, noise)
        host_node("nodes_custom_sampler", "SamplerCustom", *inputs)
    received = [text for _, branch, text, _ in seen if branch == 1]
    assert len(received) == STEPS
    for i, text in enumerate(received):
        expected = empty[0][0] if i < first_step else inversion.unconditional[i : i + 1]
        assert torch.equal(text, expected.expand_as(text)), i
    assert all(torch.equal(text, source[0][0].expand_as(text)) for _, branch, text, _ in seen if branch == 0)


@pytest.mark.parametrize("steps", [1, 20, 50, 200, 600, 999])
def test_exactly_one_entry_is_in_force_at_each_step(steps, pack, model, empty):
    """By the host's own reading of start and end."""
    from comfy.sampler_helpers import convert_cond
    from comfy.samplers import calculate_start_end_timesteps

    sigmas = pack("ei2.ddim").ddim_sigmas(steps, pack("host.unet").sigma_schedule(model))
    embeddings = torch.arange(steps).float()[:, None, None].expand(steps, *empty[0][0].shape[1:])
    inversion = pack("ei2.inverted_clip").Inversion(None, None, sigmas, embeddings, empty[0][0])
    entries = convert_cond(pack("host.null_text").scheduled_negative(model, empty, inversion))
    calculate_start_end_timesteps(model.model, entries)
    starts, ends = (torch.tensor([float(e[key]) for e in entries]) for key in ("timestep_start", "timestep_end"))
    active = (ends <= sigmas[:-1, None]) & (sigmas[:-1, None] <= starts)  # by step and entry
    assert torch.equal(active, torch.eye(steps, dtype=torch.bool))
    assert [float(e["cross_attn"].mean()) for e in entries] == list(range(steps))


def test_options_of_the_negative_are_kept(pack, optimized, empty):
    model, (inversion, *_) = optimized
    control, pooled = object(), torch.ones(1, 7)
    negative = [[empty[0][0], {"control": control, "pooled_output": pooled}]]
    scheduled = pack("host.null_text").scheduled_negative(model, negative, inversion, 2)
    assert len(scheduled) == STEPS - 1
    assert all(options["control"] is control and options["pooled_output"] is pooled for _, options in scheduled)
    assert set(negative[0][1]) == {"control", "pooled_output"}


def test_a_controlnet_of_both_prompts_holds_at_every_step(pack, optimized, empty, source, control_net):
    """The host gives what one prompt has for both to the first entry of the other."""
    from comfy.patcher_extension import WrappersMP

    model, (inversion, *_) = optimized
    control = control_net[1](source, empty)[0][0][1]["control"]
    both = [[source[0][0], {**source[0][1], "control": control, "control_apply_to_uncond": True}]]
    negative = pack("host.null_text").scheduled_negative(model, empty, inversion, positive=both)
    clone, steered = model.clone(), []

    def watch(executor, x, timesteps, context, y, control, *args, **kwargs):
        branches = kwargs.get("transformer_options", args[0] if args else {})["cond_or_uncond"]
        steered.extend(control is not None for branch in branches if branch == 1)
        return executor(x, timesteps, context, y, control, *args, **kwargs)

    clone.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "spy", watch)
    pack("host.sampling").sample(clone, inversion.noise, both, negative, 3.0, inversion.sigmas)
    assert steered == [True] * STEPS and "control" not in empty[0][1]


def test_boxes_hold_at_every_step_and_areas_are_refused(pack, optimized, empty, source):
    model, (inversion, *_) = optimized
    scheduled, (text, options) = pack("host.null_text").scheduled_negative, source[0]
    boxed = [[text, {**options, "gligen": ("position", object(), [])}]]
    entries = scheduled(model, empty, inversion, positive=boxed)
    assert len(entries) == STEPS and all(kept["gligen"] is boxed[0][1]["gligen"] for _, kept in entries)
    for key, value in (("area", (2, 2, 0, 0)), ("set_area_to_bounds", True)):
        part = [text, {**options, key: value}]
        with pytest.raises(ValueError, match="^positive has an area set, but null_text learned for the whole picture"):
            scheduled(model, empty, inversion, positive=[*source, part])


def test_cancelled_by_the_user(tuned, invert, random_clip, source, empty):
    """Where the host is asked to stop while the embeddings are learned."""
    import comfy.model_management as management
    import comfy.utils

    values = []

    def hook(value, total, *args, **kwargs):
        values.append((value, total))
        if value == STEPS + 3:
            management.interrupt_current_processing(True)

    inputs = dict(null_text=True, null_inner_steps=2, empty=empty)
    before = comfy.utils.PROGRESS_BAR_HOOK
    comfy.utils.set_progress_bar_global_hook(hook)
    try:
        with pytest.raises(management.InterruptProcessingException):
            invert(tuned, random_clip(), source, **inputs)
        assert values[-1] == (STEPS + 3, 3 * STEPS)
        assert not management.processing_interrupted()
        values.clear()
        comfy.utils.set_progress_bar_global_hook(lambda value, total, *args, **kwargs: values.append((value, total)))
        assert torch.isfinite(invert(tuned, random_clip(), source, **inputs)[0].unconditional).all()
        assert [value for value, _ in values] == sorted(value for value, _ in values)  # one bar, never backwards
        assert {total for _, total in values} == {3 * STEPS} and values[-1][0] == 3 * STEPS
    finally:
        comfy.utils.set_progress_bar_global_hook(before)


def test_without_null_text_all_is_as_before(tuned, invert, random_clip, source, empty):
    from comfy_execution.graph_utils import ExecutionBlocker

    clip = random_clip()
    inversion, noise, sigmas, negative = invert(tuned, clip, source)
    assert inversion.unconditional is None and inversion.empty is None
    assert isinstance(negative, ExecutionBlocker) and "switch null_text on, or connect an empty" in negative.message
    assert invert(tuned, clip, source, empty=empty)[3] is empty
    optimized = invert(tuned, clip, source, null_text=True, null_inner_steps=1, empty=empty)
    assert torch.equal(optimized[0].noise, inversion.noise) and torch.equal(optimized[2], sigmas)


def test_the_source_prompt_may_differ_from_the_inversions(tuned, invert, random_clip, source, empty):
    """Vid2Vid-zero inverts with an empty prompt and optimises against the source prompt."""
    inputs = dict(steps=2, null_text=True, null_inner_steps=1, empty=empty)
    plain = invert(tuned, random_clip(), empty, steps=2)[0]
    found = invert(tuned, random_clip(), empty, null_source=source, **inputs)[0]
    assert torch.equal(found.noise, plain.noise)
    other = invert(tuned, random_clip(), source, **inputs)[0]
    assert not torch.equal(found.unconditional, other.unconditional)


def test_bad_input_is_refused_before_any_work(tuned, invert, random_clip, source, empty, encode):
    calls = watched(tuned)

    def refused(match, **inputs):
        given = {"positive": source, "null_text": True, "empty": empty, **inputs}
        with pytest.raises(ValueError, match=match):
            invert(calls[0], random_clip(), given.pop("positive"), **given)
        assert not calls[1]

    refused('starts from an empty prompt: connect a "CLIP Text Encode" without text', empty=None)
    refused("The source prompt is the same as empty, so null_text has nothing to optimise", positive=encode(""))
    refused("The source prompt is the same as empty", null_source=encode(""))
    refused("null_cfg is 1, where guidance is off", null_cfg=1.0)
    refused("null_inner_steps is 0: it must be a whole number from 1 to 100", null_inner_steps=0)
    refused("empty must be one plain prompt for null_text, not several", empty=empty + empty)
    refused("empty must be one plain prompt .* but has area set", empty=[[empty[0][0], {"area": (1, 1, 0, 0)}]])
    refused("comes from another text encoder", empty=[[torch.zeros(1, 77, 64), {}]])
    two = [[torch.cat([source[0][0]] * 2), {}]]
    refused("null_source holds 2 prompts, but the video has 3 frames", null_source=two)


def test_a_negative_that_does_not_fit_is_refused(pack, optimized, encode, empty):
    scheduled = pack("host.null_text").scheduled_negative
    model, (inversion, *_) = optimized
    with pytest.raises(ValueError, match="negative is not the prompt that null_text started from: connect the"):
        scheduled(model, encode("blurry"), inversion)
    with pytest.raises(ValueError, match="negative must be one plain prompt for null_text, not several"):
        scheduled(model, empty + empty, inversion)
    with pytest.raises(ValueError, match="but has end_percent set"):
        scheduled(model, [[empty[0][0], {"end_percent": 0.5}]], inversion)
    plain = pack("ei2.inverted_clip").Inversion(inversion.noise, inversion.source, inversion.sigmas)
    with pytest.raises(ValueError, match="has no unconditional embeddings: switch null_text on in EI2 Invert"):
        scheduled(model, empty, plain)
