"""One-shot tuning of the real UNet: what it learns, what it keeps, and that options do what they say."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]


def same(a: dict, b: dict, tolerance: float = 0.0) -> bool:
    """Whether two sets of weights agree."""
    return a.keys() == b.keys() and all((a[k] - b[k]).abs().max() <= tolerance for k in a)


@pytest.mark.parametrize("preset", ["EI2", "Tune-A-Video", "Per-frame"])
def test_every_preset_learns_and_stays_finite(preset, model, inflate, tune, evaluate, source, random_clip):
    clip, inflated = random_clip(), inflate(model, preset)
    tuned, result = tune(inflated, clip, steps=2)
    assert len(result.losses) == 2 and np.isfinite(result.losses).all()
    assert result.frames == 3
    assert bool(result.temporal) == (preset != "Per-frame")
    assert len(result.query) == 14 and all(delta.any() for delta in result.query.values())
    output = evaluate(tuned, clip, source)
    assert torch.isfinite(output).all()
    assert (output - evaluate(inflated, clip, source)).abs().max() > 1e-4


@pytest.mark.parametrize(
    "options",
    [
        {"position": "after_spatial"},
        {"spatial": "dense"},
        {"normalization": "strict"},
        {"normalization": "off"},
        {"centering": "channels"},
    ],
    ids=str,
)
def test_other_options_tune_too(options, model, inflate, tune, random_clip):
    _, result = tune(inflate(model, **options), random_clip(), steps=2)
    assert np.isfinite(result.losses).all()


def test_it_learns_the_clip(model, inflate, tune, evaluate, source, random_clip):
    """A clip unlike anything the model knows; the same noise before and after: it is denoised better."""
    clip = 0.3 * random_clip(frames=2, height=4, width=4) + torch.tensor([9.0, -9.0, 9.0, -9.0]).view(1, 4, 1, 1)
    inflated = inflate(model)

    def error(model) -> float:
        errors = []
        for seed, sigma in enumerate((0.7, 2.0, 5.0)):
            noise = torch.randn(clip.shape, generator=torch.Generator().manual_seed(seed))
            denoised = evaluate(model, clip + sigma * noise / 0.18215, source, sigma=sigma)
            errors.append(float((denoised - clip * 0.18215).square().mean()) / sigma**2)
        return float(np.mean(errors))

    tuned, _ = tune(inflated, clip, steps=40, learning_rate=3e-3)
    assert error(tuned) < 0.8 * error(inflated)


@pytest.mark.parametrize("settings", ["bounded", "strict"])
@pytest.mark.parametrize("scope", ["qkvo", "vo"])
def test_tuned_matrices_are_restricted(settings, scope, model, inflate, tune, random_clip):
    _, result = tune(
        inflate(model, normalization=settings, normalization_scope=scope), random_clip(), steps=6, learning_rate=3e-2
    )
    layers = ("to_v", "to_out") if scope == "vo" else ("to_q", "to_k", "to_v", "to_out")
    checked = 0
    for name, weight in result.temporal.items():
        if name.split(".")[1] in layers and name.endswith(".weight"):
            sigma = np.linalg.svd(weight.double().numpy(), compute_uv=False)[0]
            assert sigma <= 1 + 1e-3, name
            assert settings != "strict" or sigma >= 1 - 1e-3, name
            checked += 1
    assert checked == 7 * len(layers)


def test_a_snapshot_is_a_shorter_tuning(model, inflate, tune, random_clip):
    inflated, clip, kept = inflate(model), random_clip(), {}
    tuned = [tune(inflated, clip, steps=steps)[1] for steps in (2, 4)]
    snapshots = {"on_snapshot": kept.__setitem__, "snapshot_steps": (2, 4)}
    _, whole = tune(inflated, clip, steps=4, **snapshots)
    assert list(kept) == [2, 4]
    for result, expected in zip([*kept.values(), whole], [*tuned, tuned[1]]):
        assert result.losses == expected.losses and result.frames == expected.frames
        assert same(result.temporal, expected.temporal) and same(result.query, expected.query)
    assert not same(kept[2].query, kept[4].query)


@pytest.mark.parametrize("preset", ["EI2", "Tune-A-Video"])
def test_strength_goes_from_the_untuned_to_the_tuned_model(
    preset, pack, model, inflate, tune, evaluate, source, random_clip
):
    inflated, clip = inflate(model, preset), random_clip()
    tuned, result = tune(inflated, clip, steps=4, learning_rate=1e-2)
    apply = pack("host.inflation").apply_tune
    output = lambda strength: evaluate(apply(inflated, result.scaled(strength)), clip, source)
    assert (output(0.0) - evaluate(inflated, clip, source)).abs().max() <= 1e-5
    assert torch.equal(output(1.0), evaluate(tuned, clip, source))
    assert 1e-3 < (output(0.5) - output(0.0)).abs().max() < (output(1.0) - output(0.0)).abs().max()


def test_without_restriction_matrices_grow(model, inflate, tune, random_clip):
    """What the test above would see if nothing held the matrices."""
    _, result = tune(inflate(model, normalization="off"), random_clip(), steps=6, learning_rate=3e-2)
    sigmas = [np.linalg.svd(w.numpy(), compute_uv=False)[0] for n, w in result.temporal.items() if n.endswith("weight")]
    assert max(sigmas) > 1.5


def test_the_same_seed_gives_the_same_result(model, inflate, tune, random_clip):
    clip, inflated = random_clip(), inflate(model)
    results = [tune(inflated, clip, steps=3, seed=seed)[1] for seed in (5, 5, 6)]
    assert results[0].losses == results[1].losses != results[2].losses
    assert same(results[0].temporal, results[1].temporal) and same(results[0].query, results[1].query)
    assert not same(results[0].query, results[2].query)


@pytest.mark.parametrize(
    "options",
    [{}, {"position": "after_spatial"}, {"spatial": "sca", "temporal": "attention"}],
    ids=["EI2", "after_spatial", "Tune-A-Video"],
)
def test_checkpointing_changes_nothing_but_memory(options, model, inflate, tune, random_clip):
    clip, inflated = random_clip(), inflate(model, **options)
    (_, off), (_, on) = (tune(inflated, clip, steps=3, checkpointing=choice) for choice in ("off", "on"))
    np.testing.assert_allclose(on.losses, off.losses, atol=1e-5)
    assert same(on.temporal, off.temporal, 1e-5) and same(on.query, off.query, 1e-5)


def test_checkpointing_keeps_fewer_activations(model, inflate, tune, random_clip):
    """It has to be worth its time: count what autograd saves."""
    inflated, sizes = inflate(model), {}

    for choice in ("off", "on"):
        saved = []
        with (
            torch.inference_mode(False),
            torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t),
        ):
            tune(inflated, random_clip(), steps=1, checkpointing=choice)
        sizes[choice] = sum(saved)
    assert sizes["on"] < 0.6 * sizes["off"]


def test_bf16_on_a_cpu(model, inflate, tune, random_clip):
    clip, inflated = random_clip(), inflate(model)
    (_, half), (_, full) = (tune(inflated, clip, steps=3, precision=choice) for choice in ("bf16", "fp32"))
    assert half.losses != full.losses
    np.testing.assert_allclose(half.losses, full.losses, rtol=0.1)
    assert all(w.dtype == torch.float32 for w in {**half.temporal, **half.query}.values())


@pytest.mark.parametrize("amx, avx, precision", [(True, True, "bf16"), (False, True, "bf16"), (False, False, "fp32")])
def test_auto_is_bf16_on_a_cpu_that_has_units_for_it(pack, model, monkeypatch, amx, avx, precision):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    assert pack("host.automatic").training_precision(model, "auto") == precision
    assert pack("host.null_text").null_text_precision(model) == "fp32", "small gradients need it"


def test_auto_is_fp32_on_a_cpu_whose_torch_cannot_tell(pack, model, monkeypatch):
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.delattr(torch.cpu, name)
    assert pack("host.automatic").training_precision(model, "auto") == "fp32"


@pytest.mark.parametrize("bf16, fp16, precision", [(True, True, "bf16"), (False, True, "fp16"), (False, False, "fp32")])
def test_auto_on_a_gpu_is_what_the_host_trusts(pack, monkeypatch, bf16, fp16, precision):
    """Some GPUs compute fp16 wrongly: the host knows which."""
    import comfy.model_management as management

    monkeypatch.setattr(management, "should_use_bf16", lambda *_, **__: bf16)
    monkeypatch.setattr(management, "should_use_fp16", lambda *_, **__: fp16)
    gpu = SimpleNamespace(load_device=torch.device("cuda"))
    assert pack("host.automatic").training_precision(gpu, "auto") == precision


def test_fp16_on_a_cpu_is_refused(model, inflate, tune, random_clip):
    if model.load_device.type != "cpu":
        pytest.skip("this machine has a GPU")
    with pytest.raises(ValueError, match="fp16 training needs a GPU: choose precision auto, bf16 or fp32"):
        tune(inflate(model), random_clip(), precision="fp16")


def test_where_the_learned_weights_are(model, inflate, tune, pack, random_clip):
    inflated = inflate(model)
    tuned, result = tune(inflated, random_clip(), steps=2)
    assert set(tuned.patches) == {f"diffusion_model.{name}" for name in result.query}
    assert all(name.endswith(("attn1.to_q.weight", "attn2.to_q.weight")) for name in result.query)
    (additional,) = tuned.get_nested_additional_models()
    assert same(dict(additional.model.state_dict()), result.temporal)
    assert not inflated.patches  # the model that was tuned is not the tuned model
    untuned = pack("host.inflation").inflation_of(inflated).stack.state_dict()
    assert not any(untuned[name].any() for name in untuned if "to_out" in name)
    assert any(result.temporal[name].any() for name in untuned if "to_out.weight" in name)


def test_a_tune_applies_to_a_freshly_inflated_model(model, inflate, tune, evaluate, pack, source, random_clip):
    clip = random_clip()
    tuned, result = tune(inflate(model), clip, learning_rate=1e-2)
    applied = pack("host.inflation").apply_tune(inflate(model), result)
    assert torch.equal(evaluate(applied, clip, source), evaluate(tuned, clip, source))


def test_a_tune_of_other_settings_is_refused(model, inflate, tune, pack, random_clip):
    _, result = tune(inflate(model), random_clip(), steps=1)
    with pytest.raises(ValueError, match="The tune was made with .*but the model is inflated with"):
        pack("host.inflation").apply_tune(inflate(model, "Tune-A-Video"), result)
    with pytest.raises(ValueError, match="This model is not inflated"):
        pack("host.inflation").apply_tune(model, result)


def test_tuning_goes_on_where_it_stopped(model, inflate, tune, evaluate, pack, source, random_clip):
    """Tuning a tuned model starts from what it knows: with a vanishing learning rate nothing changes."""
    clip = random_clip()
    tuned, first = tune(inflate(model), clip, learning_rate=1e-2)
    more, second = tune(tuned, clip, learning_rate=1e-7)
    reference = evaluate(tuned, clip, source)
    assert (evaluate(more, clip, source) - reference).abs().max() <= 1e-3
    assert (evaluate(inflate(model), clip, source) - reference).abs().max() > 1e-2
    assert same(first.temporal, second.temporal, 1e-5)


@pytest.mark.parametrize("layer", ["attn1.to_q", "attn1.to_k", "attn2.to_q"])
def test_a_lora_adds_up(layer, model, inflate, tune, evaluate, source, random_clip):
    """A LoRA's difference on a projection, before and after tuning: the loaded weight is the sum of everything."""
    import comfy.model_management

    clip = random_clip()
    comfy.model_management.load_models_gpu([model], force_full_load=True)  # so that no other clone's weights are in
    name = f"middle_block.1.transformer_blocks.0.{layer}.weight"
    key = f"diffusion_model.{name}"
    plain = model.model_state_dict()[key].clone()
    lora = 0.1 * torch.randn(plain.shape, generator=torch.Generator().manual_seed(0))

    def with_lora(model):
        clone = model.clone()
        clone.add_patches({key: ("diff", (lora,))}, 0.5)
        return clone

    tuned_plainly, result = tune(inflate(model), clip, learning_rate=1e-2)
    tuned_with, result_with = tune(inflate(with_lora(model)), clip, learning_rate=1e-2)
    assert result_with.losses != result.losses  # it was in force while training
    for tuned, tune_result in ((with_lora(tuned_plainly), result), (tuned_with, result_with)):
        comfy.model_management.load_models_gpu([tuned], force_full_load=True)
        loaded = tuned.model.diffusion_model.get_parameter(name).cpu()
        expected = plain + 0.5 * lora + tune_result.query.get(name, torch.zeros(()))
        torch.testing.assert_close(loaded, expected, atol=1e-6, rtol=0)
    changed = evaluate(with_lora(tuned_plainly), clip, source) - evaluate(tuned_plainly, clip, source)
    assert changed.abs().max() > 1e-4


def test_works_outside_inference_mode_too(model, inflate, tune, random_clip):
    inflated, clip = inflate(model), random_clip()
    _, expected = tune(inflated, clip, steps=2)
    with torch.inference_mode(False):
        _, result = tune(inflated, clip.clone(), steps=2)
    assert result.losses == expected.losses


def test_the_model_is_loaded_before_anything_is_put_beside_it(model, inflate, tune, random_clip, pack, monkeypatch):
    """Loading makes room on a GPU, where another model may lie."""
    import comfy.model_management

    stack, order = pack("host.temporal_stack").TemporalStack, []
    for owner, name in ((comfy.model_management, "load_models_gpu"), (stack, "ordinary")):
        function = getattr(owner, name)
        told = lambda *args, name=name, function=function, **kwargs: (order.append(name), function(*args, **kwargs))[1]
        monkeypatch.setattr(owner, name, told)
    tune(inflate(model), random_clip(), steps=1)
    assert order[:2] == ["load_models_gpu", "ordinary"]


def test_a_picture_of_latents_is_made_on_the_cpu(model, pack, random_clip):
    """From a GPU, the host's previewers do not wait for the picture to arrive."""
    elsewhere = model.clone()
    elsewhere.load_device = torch.device("meta")
    assert pack("host.ui").latent_picture(elsewhere, random_clip())


def test_settings_are_kept_with_the_tune(model, inflate, tune, random_clip):
    _, result = tune(inflate(model, coarse_factor=4), random_clip(), steps=1)
    assert dataclasses.asdict(result.settings)["coarse_factor"] == 4


def with_nan(latents: torch.Tensor) -> torch.Tensor:
    latents[0, 0, 0, 0] = float("nan")
    return latents


def test_bad_input_is_refused_in_words(model, inflate, tune, random_clip, pack, source, encode):
    inflated, clip = inflate(model), random_clip()
    execute = pack("nodes.one_shot_tune").OneShotTune.execute

    def refused(match, latent, model=inflated, positive=source):
        with pytest.raises(ValueError, match=match):
            execute(model, latent, positive, 1, 1e-3, 0, "auto", "auto")

    refused('add an "EI2 Inflate UNet" node between', {"samples": clip}, model=model)
    refused("The clip has one frame: load at least two", {"samples": clip[:1]})
    refused("hold NaN or infinite values", {"samples": with_nan(clip.clone())})
    refused("has 16 channels, but the model needs 4", {"samples": torch.zeros(3, 16, 6, 6)})
    refused("not a batch of frames", {"samples": clip[None]})
    refused("carries a mask", {"samples": clip, "noise_mask": torch.ones(1, 6, 10)})
    refused("repeated frames", {"samples": clip, "batch_index": [0, 0, 0]})
    two_prompts = [[torch.cat([source[0][0]] * 2), {}]]
    refused("holds 2 prompts, but the video has 3 frames", {"samples": clip}, positive=two_prompts)


def test_tuning_under_a_controlnet(model, inflate, tune, control_net, random_clip, source, encode):
    net, prompts = control_net
    (_, steered), (_, plain) = (
        tune(inflate(model), random_clip(), positive) for positive in (prompts(source, encode(""))[0], source)
    )
    assert steered.losses[0] != pytest.approx(plain.losses[0], rel=1e-3)
    assert all(parameter.grad is None for parameter in net.parameters())
