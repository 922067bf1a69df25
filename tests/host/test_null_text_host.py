"""Null-text optimisation on the UNet: its loss is that of the host's guided step, and only the embedding learns."""

from __future__ import annotations

import logging

import pytest
import torch

from .calls import watched

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]

GUIDANCE = 7.5


@pytest.fixture(scope="module")
def empty(encode):
    return encode("")


@pytest.fixture(scope="module")
def tuned(model, inflate, tune, random_clip):
    with torch.inference_mode():
        return tune(inflate(model), random_clip(), steps=3, learning_rate=1e-2)[0]


@pytest.fixture(scope="module")
def optimize(pack):
    """`optimize(model, clip, source, empty, ...)` -> embeddings, losses and the trajectory from noise to clean."""

    def optimize(model, clip, source, empty, steps=2, inner=2, guidance=GUIDANCE, **options):
        path = []
        _, sigmas = pack("host.sampling").invert(model, clip, source, steps, 0, path.append)
        settings = pack("ei2.null_text").NullTextSettings(inner, guidance)
        null_text = pack("host.null_text").null_text
        return *null_text(model, path[::-1], sigmas, source, empty, settings, **options), path[::-1], sigmas

    return optimize


@pytest.fixture(scope="module")
def like_sdxl():
    """A small UNet of random weights that reads a pooled vector, through the host's SDXL, and its prompts."""
    import comfy.model_patcher
    import comfy.supported_models

    config = comfy.supported_models.SDXL(
        {
            "image_size": 32,
            "in_channels": 4,
            "out_channels": 4,
            "model_channels": 32,
            "channel_mult": [1, 2],
            "num_res_blocks": [1, 1],
            "transformer_depth": [0, 2],
            "transformer_depth_middle": 2,
            "transformer_depth_output": [0, 0, 2, 2],
            "context_dim": 48,
            "use_spatial_transformer": True,
            "use_linear_in_transformer": True,
            "adm_in_channels": 2816,
            "num_classes": "sequential",
            "use_temporal_attention": False,
            "legacy": False,
            "num_head_channels": 16,
            "num_heads": -1,
        }
    )
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
    inversion = pack("ei2.inverted_clip").Inversion(random_clip(), None, sigmas, embeddings, empty[0][0])
    seen.clear()
    negative = pack("host.null_text").scheduled_negative(model, empty, inversion)
    pack("host.sampling").sample(clone, inversion.noise, source, negative, 3.0, sigmas)
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


def test_only_the_embedding_learns(model, tuned, optimize, evaluate, random_clip, source, empty):
    clip = random_clip()
    expected = [evaluate(one, clip, source) for one in (tuned, model)]
    before = {name: weight.clone() for name, weight in model.model.state_dict().items()}
    carried = [sorted(tuned.patches), str(tuned.wrappers), str(tuned.model_options), sorted(tuned.additional_models)]
    optimize(tuned, clip, source, empty, checkpointing="on")
    (stack,) = (patcher.model for patcher in tuned.get_nested_additional_models())
    assert all(parameter.grad is None for m in (model.model, stack) for parameter in m.parameters())
    assert carried == [
        sorted(tuned.patches),
        str(tuned.wrappers),
        str(tuned.model_options),
        sorted(tuned.additional_models),
    ]
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
    half = pack("host.miniature").load_miniature()[0]
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
    precision = pack("host.null_text").null_text_precision(model)
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


def test_a_breakdown_is_told(tuned, optimize, random_clip, source, empty, caplog):
    caplog.set_level(logging.CRITICAL)
    with pytest.raises(RuntimeError, match="in null-text optimisation at step 1 of 2; nothing of it is kept. Choose"):
        optimize(tuned, random_clip(), source, empty, guidance=1e30)
