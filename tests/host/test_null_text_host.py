"""Null-text optimisation on the real UNet: guided sampling returns the clip, and nothing but the embedding learns."""

from __future__ import annotations

import logging

import pytest
import torch

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]

STEPS, INNER, GUIDANCE = 5, 6, 7.5


@pytest.fixture(scope="module")
def empty(encode):
    return encode("")


@pytest.fixture(scope="module")
def invert(pack):
    """The outputs of EI2 Invert: `invert(model, clip, positive, steps=STEPS, **inputs)`."""

    def invert(model, clip, positive, steps=STEPS, refine=0, **inputs):
        return pack("nodes.invert").Invert.execute(model, {"samples": clip}, positive, steps, refine, **inputs).args

    return invert


@pytest.fixture(scope="module")
def sample(pack, source):
    """Guided sampling of an inversion with the source prompt."""
    sample = pack("nodes.host.sampling").sample
    return lambda model, inversion, negative, cfg=GUIDANCE, positive=source: sample(
        model, inversion.noise, positive, negative, cfg, inversion.sigmas
    )


@pytest.fixture(scope="module")
def tuned(model, inflate, tune, random_clip):
    with torch.inference_mode():
        return tune(inflate(model), random_clip(), steps=3, learning_rate=1e-2)[0]


@pytest.fixture(scope="module")
def rendered(pack, miniature):
    """Latents of two frames of the quick start's clip."""
    clips, world = pack("miniature.clips"), pack("miniature.world")
    with torch.inference_mode():
        return miniature[2].encode(world.render(clips.quickstart_clip()[:7:6]).movedim(1, -1))


@pytest.fixture(scope="module")
def optimized(model, inflate, invert, rendered, source, empty):
    """An inflated MODEL and the outputs of EI2 Invert with null-text optimisation."""
    with torch.inference_mode():
        inflated = inflate(model)
        return inflated, invert(inflated, rendered, source, null_text=True, null_inner_steps=INNER, empty=empty)


@pytest.fixture(scope="module")
def optimize(pack):
    """`optimize(model, clip, source, empty, ...)` -> embeddings, losses and the trajectory from noise to clean."""

    def optimize(model, clip, source, empty, steps=2, inner=2, guidance=GUIDANCE, **options):
        path = []
        _, sigmas = pack("nodes.host.sampling").invert(model, clip, source, steps, 0, path.append)
        settings = pack("ei2.null_text").NullTextSettings(inner, guidance)
        null_text = pack("nodes.host.null_text").null_text
        return *null_text(model, path[::-1], sigmas, source, empty, settings, **options), path[::-1], sigmas

    return optimize


def watched(model, key="spy"):
    """A clone of a MODEL and the list of what its UNet is called with: `(timestep, branch, context, y)` per branch."""
    from comfy.patcher_extension import WrappersMP

    clone, seen = model.clone(), []

    def watch(executor, x, timesteps, context, *args, **kwargs):
        branches = kwargs.get("transformer_options", args[2] if len(args) > 2 else {})["cond_or_uncond"]
        y = kwargs.get("y", args[0] if args else None)
        ys = [None] * len(branches) if y is None else y.chunk(len(branches))
        for branch, text, vector in zip(branches, context.chunk(len(branches)), ys):
            seen.append((float(timesteps[0]), branch, text.detach().clone(), vector))
        return executor(x, timesteps, context, *args, **kwargs)

    clone.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, key, watch)
    return clone, seen


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
    negative = pack("nodes.host.null_text").scheduled_negative(model, empty, inversion, first_step)
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

    sigmas = pack("ei2.ddim").ddim_sigmas(steps, pack("nodes.host.unet").sigma_schedule(model))
    embeddings = torch.arange(steps).float()[:, None, None].expand(steps, *empty[0][0].shape[1:])
    inversion = pack("nodes.inversion").Inversion(None, None, sigmas, embeddings, empty[0][0])
    entries = convert_cond(pack("nodes.host.null_text").scheduled_negative(model, empty, inversion))
    calculate_start_end_timesteps(model.model, entries)
    starts, ends = (torch.tensor([float(e[key]) for e in entries]) for key in ("timestep_start", "timestep_end"))
    active = (ends <= sigmas[:-1, None]) & (sigmas[:-1, None] <= starts)  # by step and entry
    assert torch.equal(active, torch.eye(steps, dtype=torch.bool))
    assert [float(e["cross_attn"].mean()) for e in entries] == list(range(steps))


def test_options_of_the_negative_are_kept(pack, optimized, empty):
    model, (inversion, *_) = optimized
    control, pooled = object(), torch.ones(1, 7)
    negative = [[empty[0][0], {"control": control, "pooled_output": pooled}]]
    scheduled = pack("nodes.host.null_text").scheduled_negative(model, negative, inversion, 2)
    assert len(scheduled) == STEPS - 1
    assert all(options["control"] is control and options["pooled_output"] is pooled for _, options in scheduled)
    assert set(negative[0][1]) == {"control", "pooled_output"}


def test_a_controlnet_of_both_prompts_holds_at_every_step(pack, optimized, empty, source, control_net):
    """The host gives what one prompt has for both to the first entry of the other."""
    from comfy.patcher_extension import WrappersMP

    model, (inversion, *_) = optimized
    control = control_net[1](source, empty)[0][0][1]["control"]
    both = [[source[0][0], {**source[0][1], "control": control, "control_apply_to_uncond": True}]]
    negative = pack("nodes.host.null_text").scheduled_negative(model, empty, inversion, positive=both)
    clone, steered = model.clone(), []

    def watch(executor, x, timesteps, context, y, control, *args, **kwargs):
        branches = kwargs.get("transformer_options", args[0] if args else {})["cond_or_uncond"]
        steered.extend(control is not None for branch in branches if branch == 1)
        return executor(x, timesteps, context, y, control, *args, **kwargs)

    clone.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "spy", watch)
    pack("nodes.host.sampling").sample(clone, inversion.noise, both, negative, 3.0, inversion.sigmas)
    assert steered == [True] * STEPS and "control" not in empty[0][1]


@pytest.fixture(scope="module")
def like_sdxl():
    """A small UNet of random weights that reads a pooled vector, through the host's SDXL, and its prompts."""
    import comfy.model_patcher
    import comfy.supported_models

    config = comfy.supported_models.SDXL({
        "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "channel_mult": [1, 2],
        "num_res_blocks": [1, 1], "transformer_depth": [0, 2], "transformer_depth_middle": 2,
        "transformer_depth_output": [0, 0, 2, 2], "context_dim": 48, "use_spatial_transformer": True,
        "use_linear_in_transformer": True, "adm_in_channels": 2816, "num_classes": "sequential",
        "use_temporal_attention": False, "legacy": False, "num_head_channels": 16, "num_heads": -1,
    })  # fmt: skip
    config.unet_extra_config = {}
    config.set_inference_dtype(torch.float32, None)
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        base = config.get_model({}, "")
        for parameter in base.diffusion_model.parameters():
            scale = parameter.shape[1:].numel() ** -0.5 if parameter.ndim > 1 else 0.1
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
        prompts = [
            [[torch.randn(1, 7, 48, generator=generator), {"pooled_output": torch.randn(1, 1280, generator=generator)}]]
            for _ in range(2)
        ]
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(base, cpu, cpu), *prompts


@pytest.mark.parametrize("kind", ["not inflated", "EI2", "Tune-A-Video", "Vid2Vid-zero", "tuned", "v", "SDXL", "LoRA"])
def test_the_first_loss_is_that_of_the_hosts_guided_step(
    kind, model, inflate, predicting_v, tuned, optimize, evaluate, random_clip, source, empty, like_sdxl
):
    """Whatever the model carries is in force while it is differentiated, and the guidance is the host's."""
    clip = random_clip()
    if kind == "SDXL":
        plain, source, empty = like_sdxl
        chosen = inflate(plain)
    elif kind == "v":
        chosen = inflate(predicting_v(model))
    elif kind == "LoRA":
        chosen = inflate(model)
        weight = 0.2 * torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
        key = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_q.weight"
        assert chosen.add_patches({key: ("diff", (weight,))}) == [key]
    else:
        chosen = {"not inflated": model, "tuned": tuned}.get(kind) or inflate(model, kind)
    embeddings, losses, path, sigmas = optimize(chosen, clip, source, empty, steps=3, inner=1)
    scale = chosen.model.latent_format.scale_factor
    denoised = evaluate(chosen, path[0] / scale, source, empty, GUIDANCE, sigmas[0].item())
    following = path[0] + (sigmas[1] - sigmas[0]) * (path[0] - denoised) / sigmas[0]
    expected = (following - path[1]).square().mean() / (1 + sigmas[1] ** 2)
    assert losses[0] == pytest.approx(expected.item(), rel=1e-3)
    assert (embeddings[0] - empty[0][0]).abs().max() == pytest.approx(1e-2 * 50 / 3, rel=1e-2)  # Adam's first step


def test_v_prediction_learns_what_epsilon_does(model, inflate, predicting_v, optimize, random_clip, source, empty):
    (_, eps, *_), (_, v, *_) = (
        optimize(inflate(m), random_clip(), source, empty, inner=3) for m in (model, predicting_v(model))
    )
    assert v == pytest.approx(eps, rel=0.05)


def test_pooled_vectors_are_untouched(like_sdxl, inflate, optimize, pack, random_clip):
    model, source, empty = like_sdxl
    clone, seen = watched(inflate(model))
    embeddings, losses, _, sigmas = optimize(clone, random_clip(), source, empty, inner=4)
    negatives = [call for call in seen if call[1] == 1]
    assert len(negatives) == 2 * 5 and all(torch.equal(y, negatives[0][3]) for *_, y in negatives)
    assert torch.equal(negatives[0][3][0, :1280], empty[0][1]["pooled_output"][0])
    assert not torch.equal(negatives[0][2], negatives[-1][2])
    inversion = pack("nodes.inversion").Inversion(random_clip(), None, sigmas, embeddings, empty[0][0])
    seen.clear()
    negative = pack("nodes.host.null_text").scheduled_negative(model, empty, inversion)
    pack("nodes.host.sampling").sample(clone, inversion.noise, source, negative, 3.0, sigmas)
    for text, y, expected in zip(*zip(*((c[2], c[3]) for c in seen if c[1] == 1)), embeddings):
        assert torch.equal(text, expected.expand_as(text)) and torch.equal(y, negatives[0][3])


def test_a_controlnet_is_in_force(model, inflate, optimize, evaluate, control_net, random_clip, source, empty):
    """It counts, but learns nothing itself."""
    net, prompts = control_net
    before = {name: weight.clone() for name, weight in net.state_dict().items()}
    inflated, steered = inflate(model), prompts(source, empty)
    _, losses, path, sigmas = optimize(inflated, random_clip(), *steered, checkpointing="on")
    scale = model.model.latent_format.scale_factor
    guided = [
        evaluate(inflated, path[0] / scale, *pair, GUIDANCE, sigmas[0].item()) for pair in (steered, (source, empty))
    ]
    following = [path[0] + (sigmas[1] - sigmas[0]) * (path[0] - denoised) / sigmas[0] for denoised in guided]
    expected, plain = ((x - path[1]).square().mean().item() / (1 + sigmas[1].item() ** 2) for x in following)
    assert plain != pytest.approx(expected, rel=0.1)
    assert losses[0] < expected and optimize(inflated, random_clip(), *steered, inner=1)[1][0] == pytest.approx(
        expected, rel=1e-3
    )
    assert all(torch.equal(weight, before[name]) for name, weight in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_tuning_under_a_controlnet(model, inflate, tune, control_net, random_clip, source, empty):
    net, prompts = control_net
    (_, steered), (_, plain) = (
        tune(inflate(model), random_clip(), positive) for positive in (prompts(source, empty)[0], source)
    )
    assert steered.losses[0] != pytest.approx(plain.losses[0], rel=1e-3)
    assert all(parameter.grad is None for parameter in net.parameters())


def test_only_the_embedding_learns(model, tuned, optimize, evaluate, random_clip, source, empty):
    clip = random_clip()
    expected = [evaluate(one, clip, source) for one in (tuned, model)]
    before = {name: weight.clone() for name, weight in model.model.state_dict().items()}
    carried = [sorted(tuned.patches), str(tuned.wrappers), str(tuned.model_options), sorted(tuned.additional_models)]
    optimize(tuned, clip, source, empty, checkpointing="on")
    (stack,) = (patcher.model for patcher in tuned.get_nested_additional_models())
    assert all(parameter.grad is None for m in (model.model, stack) for parameter in m.parameters())
    assert carried == [
        sorted(tuned.patches), str(tuned.wrappers), str(tuned.model_options), sorted(tuned.additional_models)
    ]  # fmt: skip
    assert not any("forward" in vars(module) or module._forward_hooks for module in model.model.modules())
    for one, output in zip((tuned, model), expected):
        assert torch.equal(evaluate(one, clip, source), output)
    assert all(torch.equal(weight, before[name]) for name, weight in model.model.state_dict().items())


def test_checkpointing_changes_nothing_but_memory(tuned, optimize, random_clip, source, empty):
    results, sizes = [], []
    for choice in ("off", "on"):
        saved = []
        keep = lambda t, saved=saved: saved.append(t.numel()) or t
        with torch.inference_mode(False), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            results.append(optimize(tuned, random_clip(), source, empty, checkpointing=choice))
        sizes.append(sum(saved))
    assert sizes[1] < 0.6 * sizes[0]
    torch.testing.assert_close(results[1][0], results[0][0], atol=1e-5, rtol=0)


def test_bf16_finds_much_the_same(tuned, optimize, random_clip, source, empty):
    (_, full, *_), (low, half, *_) = (
        optimize(tuned, random_clip(), source, empty, inner=3, precision=choice) for choice in ("fp32", "bf16")
    )
    assert half != full and half == pytest.approx(full, rel=0.2)
    assert low.dtype == torch.float32


def test_a_half_precision_model_computes_in_bf16(pack, model, inflate, optimize, random_clip, source, empty):
    """In fp16, as GPUs keep models, gradients as small as these would become 0."""
    half = pack("nodes.host.miniature").load_miniature()[0]
    unet = half.model.diffusion_model.half()
    unet.dtype = torch.float16
    dtypes = set()
    handle = unet.out.register_forward_pre_hook(lambda _, inputs: dtypes.add(inputs[0].dtype))
    found, losses, *_ = optimize(inflate(half), random_clip(), source, empty, precision="bf16")
    handle.remove()
    assert torch.bfloat16 in dtypes
    _, expected, *_ = optimize(inflate(model), random_clip(), source, empty)
    assert losses == pytest.approx(expected, rel=0.2) and found.dtype == torch.float32
    assert half.get_model_object("manual_cast_dtype") is None and half.model_dtype() == torch.float16


def test_precision_follows_the_device(pack, model):
    precision = pack("nodes.host.null_text").null_text_precision(model)
    assert precision == "fp32" if model.load_device.type == "cpu" else precision in ("bf16", "fp32")


class Cancelled(Exception):
    pass


def test_cancelled_in_the_middle_then_run_again(tuned, optimize, evaluate, random_clip, source, empty):
    def cancel(done, loss):
        if done == 3:
            raise Cancelled

    clip = random_clip()
    expected, output = optimize(tuned, clip, source, empty)[0], evaluate(tuned, clip, source)
    for checkpointing in ("off", "on"):
        with pytest.raises(Cancelled):
            optimize(tuned, clip, source, empty, on_step=cancel, checkpointing=checkpointing)
        assert torch.equal(evaluate(tuned, clip, source), output)
    assert torch.equal(optimize(tuned, clip, source, empty)[0], expected)
    assert torch.is_inference_mode_enabled()


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
    refused("null_inner_steps is 0: it must be 1 or more", null_inner_steps=0)
    refused("empty has to be one plain prompt for null_text, not several", empty=empty + empty)
    refused("empty has to be one plain prompt .* but has area set", empty=[[empty[0][0], {"area": (1, 1, 0, 0)}]])
    refused("comes from another text encoder", empty=[[torch.zeros(1, 77, 64), {}]])
    two = [[torch.cat([source[0][0]] * 2), {}]]
    refused("null_source holds 2 prompts, but the video has 3 frames", null_source=two)


def test_a_negative_that_does_not_fit_is_refused(pack, optimized, encode, empty):
    scheduled = pack("nodes.host.null_text").scheduled_negative
    model, (inversion, *_) = optimized
    with pytest.raises(ValueError, match="negative is another prompt than the one null_text started from: connect the"):
        scheduled(model, encode("blurry"), inversion)
    with pytest.raises(ValueError, match="negative has to be one plain prompt for null_text, not several"):
        scheduled(model, empty + empty, inversion)
    with pytest.raises(ValueError, match="but has end_percent set"):
        scheduled(model, [[empty[0][0], {"end_percent": 0.5}]], inversion)
    plain = pack("nodes.inversion").Inversion(inversion.noise, inversion.source, inversion.sigmas)
    with pytest.raises(ValueError, match="has no unconditional embeddings: switch null_text on in EI2 Invert"):
        scheduled(model, empty, plain)


def test_a_breakdown_is_told(tuned, optimize, random_clip, source, empty, caplog):
    caplog.set_level(logging.CRITICAL)
    with pytest.raises(RuntimeError, match="in null-text optimisation at step 1 of 2; nothing of it is kept. Choose"):
        optimize(tuned, random_clip(), source, empty, guidance=1e30)
