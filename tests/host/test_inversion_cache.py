"""Inversions kept on disk: found again only where everything is the same, bounded, and never in the way."""

from __future__ import annotations

import os
import time

import folder_paths
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]

KEPT, FOUND = "computed and kept", "from the cache"


@pytest.fixture
def cache(pack, tmp_path):
    """The cache, in an empty user directory."""
    module = pack("host.inversion_cache")
    before = folder_paths.get_user_directory(), os.environ.pop(module.LIMIT_VARIABLE)
    folder_paths.set_user_directory(str(tmp_path))
    yield module
    folder_paths.set_user_directory(before[0])
    os.environ[module.LIMIT_VARIABLE] = before[1]


@pytest.fixture
def invert(pack, cache, source):
    """EI2 Invert: its outputs, what it shows, and how often the UNet was called."""
    node = pack("nodes.invert").Invert

    def invert(model, latents, positive=None, steps=3, refine=0, **others):
        calls = []
        handle = model.model.diffusion_model.time_embed.register_forward_hook(lambda *_: calls.append(1))
        try:
            output = node.execute(model, {"samples": latents}, positive or source, steps, refine, **others)
        finally:
            handle.remove()
        return output.args, output.ui["text"][0], len(calls)

    return invert


def test_the_second_time_no_unet_is_called_and_all_is_the_same(model, inflate, tune, invert, random_clip):
    tuned, _ = tune(inflate(model), random_clip(), learning_rate=1e-2)
    first, told, calls = invert(tuned, random_clip())
    assert told.startswith(KEPT) and "1 inversion," in told and calls == 3
    again, told, calls = invert(tuned, random_clip())
    assert told.startswith(FOUND) and calls == 0
    assert torch.equal(first[0].noise, again[0].noise) and torch.equal(first[1]["samples"], again[1]["samples"])
    assert torch.equal(first[2], again[2]) and torch.equal(again[0].source, random_clip())
    off, told, calls = invert(tuned, random_clip(), cache=False)
    assert told == "computed, not kept" and calls == 3 and torch.equal(off[0].noise, first[0].noise)


def test_null_text_is_kept_too(model, inflate, invert, random_clip, encode):
    inflated, empty = inflate(model), encode("")
    options = {"null_text": True, "null_inner_steps": 2, "empty": empty, "steps": 2}
    first, told, _ = invert(inflated, random_clip(), **options)
    assert told.startswith(KEPT)
    again, told, calls = invert(inflated, random_clip(), **options)
    assert told.startswith(FOUND) and calls == 0
    for name in ("noise", "sigmas", "unconditional", "empty"):
        assert torch.equal(getattr(first[0], name), getattr(again[0], name)), name
    assert first[0].null_cfg == again[0].null_cfg
    assert [entry[1] for entry in first[3]] == [entry[1] for entry in again[3]]
    for change in ({"null_cfg": 5.0}, {"null_inner_steps": 1}, {"null_source": encode("a red circle")}):
        assert invert(inflated, random_clip(), **{**options, **change})[1].startswith(KEPT), change
    assert invert(inflated, random_clip(), steps=2)[1].startswith(KEPT)  # without null-text


def test_the_trajectory_is_kept_where_it_is_wanted(model, inflate, invert, random_clip):
    inflated = inflate(model)
    assert invert(inflated, random_clip())[0][0].trajectory is None
    first, told, _ = invert(inflated, random_clip(), trajectory=True)
    assert told.startswith(KEPT)
    again, told, calls = invert(inflated, random_clip(), trajectory=True)
    assert told.startswith(FOUND) and calls == 0 and len(again[0].trajectory) == 4
    assert torch.equal(first[0].trajectory, again[0].trajectory)
    assert invert(inflated, random_clip())[0][0].trajectory is None


def test_whatever_changes_is_computed_anew(pack, model, inflate, tune, invert, random_clip, encode, source):
    """Each of these is another inversion than the first, and none is another's."""
    clip, inflated = random_clip(), inflate(model)
    key = "diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_k.weight"
    changed = clip.clone()
    changed[-1, -1, -1, -1] += 1e-5

    def with_lora(strength):
        clone = inflated.clone()
        clone.add_patches({key: ("diff", (torch.ones(256, 256),))}, strength)
        return clone

    tuned, result = tune(inflated, clip, learning_rate=1e-2)
    apply = pack("host.inflation").apply_tune
    other = pack("host.miniature").load_miniature()[0]
    with torch.no_grad():
        for weight in other.model.diffusion_model.parameters():
            weight.mul_(1.001)
    resampled = inflated.clone()
    schedule = type(model.get_model_object("model_sampling"))(model.model.model_config)
    schedule.set_sigmas(schedule.sigmas * 1.01)
    resampled.add_object_patch("model_sampling", schedule)
    pooled = [[source[0][0], {**source[0][1], "pooled_output": torch.ones(1, 8)}]]
    cases = {
        "first": (inflated, clip),
        "latents": (inflated, changed),
        "prompt": (inflated, clip, encode("a red circle")),
        "pooled": (inflated, clip, pooled),
        "steps": (inflated, clip, source, 2),
        "refine": (inflated, clip, source, 1, 1),
        "not inflated": (model, clip),
        "inflation": (inflate(model, "Tune-A-Video"), clip),
        "coarse factor": (inflate(model, coarse_factor=4), clip),
        "tune": (tuned, clip),
        "temporal strength": (apply(inflated, result.scaled(0.5, 1.0)), clip),
        "query strength": (apply(inflated, result.scaled(1.0, 0.5)), clip),
        "LoRA": (with_lora(0.1), clip),
        "LoRA strength": (with_lora(0.2), clip),
        "checkpoint": (inflate(other), clip),
        "schedule": (resampled, clip),
    }
    for name, arguments in cases.items():
        assert invert(*arguments, **({"steps": 1} if len(arguments) < 4 else {}))[1].startswith(KEPT), name
    for name, arguments in cases.items():
        assert invert(*arguments, **({"steps": 1} if len(arguments) < 4 else {}))[1].startswith(FOUND), name


def test_context_windows_count(pack, model, inflate):
    """The host's own node for long clips: kept by its settings, wherever its handler has been."""
    import comfy.context_windows as windows

    name, inflated = pack("host.identity").inversion_key, inflate(model)

    def windowed(length, fuse="pyramid"):
        clone = inflated.clone()
        schedule = windows.get_matching_context_schedule(windows.ContextSchedules.UNIFORM_STANDARD)
        fuse = windows.get_matching_fuse_method(fuse)
        clone.model_options["context_handler"] = windows.IndexListContextHandler(schedule, fuse, length, 1)
        windows.create_prepare_sampling_wrapper(clone)
        return clone

    assert len({name(given, {}) for given in (inflated, windowed(3), windowed(2), windowed(3, "flat"))}) == 4
    used = windowed(3)
    used.model_options["context_handler"]._step = 7  # where it stood when it was last used
    assert name(used, {}) == name(windowed(3), {})


def test_what_cannot_be_told_is_computed_and_not_kept(model, inflate, invert, random_clip, source, cache):
    inflated = inflate(model)
    patched = inflated.clone()
    patched.set_model_attn1_patch(lambda q, k, v, options: (q, k, v))
    guided = inflated.clone()
    guided.set_model_sampler_post_cfg_function(lambda arguments: arguments["denoised"])
    wrapped = inflated.clone()
    wrapped.add_wrapper("diffusion_model", lambda executor, *args, **kwargs: executor(*args, **kwargs))
    controlled = [[source[0][0], {**source[0][1], "gligen": ("position", object(), [])}]]
    for given, words in ((patched, "options"), (guided, "options"), (wrapped, "wrappers")):
        _, told, calls = invert(given, random_clip())
        assert told.startswith("computed, not kept: another node's " + words) and calls == 3
    with pytest.raises(AttributeError):  # the host's, as this is no GLIGEN; it got as far as computing
        invert(inflated, random_clip(), controlled)
    assert cache.usage().entries == 0


def test_a_broken_file_is_computed_anew(model, inflate, invert, random_clip, cache):
    inflated = inflate(model)
    first, _, _ = invert(inflated, random_clip())
    (path,) = cache.inversions_folder().iterdir()
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        eighths = save({**tensors, "noise": tensors["noise"].to(torch.float8_e4m3fn)}, file.metadata())
    for content in (path.read_bytes()[:-8], b"", b"not a file", eighths):
        path.write_bytes(content)
        again, told, calls = invert(inflated, random_clip())
        assert told.startswith(KEPT) and calls == 3 and torch.equal(first[0].noise, again[0].noise)
    assert invert(inflated, random_clip())[1].startswith(FOUND)


def test_a_folder_that_cannot_be_written_is_no_reason_to_fail(model, inflate, invert, random_clip, tmp_path):
    (tmp_path / "__ei2").write_text("in the way")
    _, told, calls = invert(inflate(model), random_clip())
    assert told.startswith("computed, not kept: ") and calls == 3


def test_the_least_recently_used_ones_go(model, inflate, invert, random_clip, cache):
    inflated = inflate(model)
    invert(inflated, random_clip(seed=0))
    size = cache.usage().size
    os.environ[cache.LIMIT_VARIABLE] = str(2.5 * size / 1e6)
    for seed, told in ((1, KEPT), (0, FOUND), (2, KEPT), (0, FOUND), (1, KEPT), (0, FOUND)):
        time.sleep(0.02)  # the disk's clock is coarse
        assert invert(inflated, random_clip(seed=seed))[1].startswith(told), seed
        assert cache.usage().entries <= 2
    for given, told in ((str(0.5 * size / 1e6), "larger than the cache"), ("0", "the cache is switched off")):
        os.environ[cache.LIMIT_VARIABLE] = given
        assert invert(inflated, random_clip(seed=3))[1] == f"computed, not kept: {told}"
    os.environ[cache.LIMIT_VARIABLE] = "much"
    with pytest.raises(ValueError, match="EI2_CACHE_MB is 'much': set it to a number of megabytes"):
        invert(inflated, random_clip(seed=4))


def test_the_node_reports_and_clears(pack, model, inflate, invert, random_clip, cache):
    node = pack("nodes.inversion_cache").InversionCache
    assert node.execute(False).args[0].startswith("no inversions; at most ")
    before = node.fingerprint_inputs(False)
    invert(inflate(model), random_clip())
    assert node.fingerprint_inputs(False) != before
    report = node.execute(False).args[0]
    assert report.startswith("1 inversion,") and str(cache.inversions_folder()) in report
    assert node.fingerprint_inputs(True) != node.fingerprint_inputs(True)  # never done already
    assert node.execute(True).args[0].startswith("deleted 1 inversion,")
    assert not list(cache.inversions_folder().iterdir())


def test_the_size_of_the_key_is_no_matter_of_the_models(pack, model):
    """A sample of the base model goes into the name, not all of it."""
    identity = pack("host.identity")
    weights = identity.unpatched_weights(model)
    sample = identity.weight_sample(weights, identity.VALUES_OF_INVERTED)
    assert sample.numel() == 64 * len(weights) < 0.01 * sum(weight.numel() for weight in weights.values())


def test_the_newest_one_stays(model, inflate, invert, random_clip, cache, monkeypatch):
    """Others may be dated in the future, by a clock that was wrong."""
    inflated = inflate(model)
    invert(inflated, random_clip())
    (path,) = cache.inversions_folder().iterdir()
    os.utime(path, (2**33, 2**33))
    monkeypatch.setenv(cache.LIMIT_VARIABLE, str(cache.usage().size * 1.5 / 1e6))
    assert invert(inflated, random_clip(seed=1))[1].startswith(KEPT)
    assert cache.usage().entries == 1 and not path.exists()


def test_what_a_loras_file_says_of_itself_is_no_matter(pack, model, inflate):
    """Newer hosts attach it to the model."""
    identity, noted = pack("host.identity"), inflate(model)
    plain = identity.inversion_key(noted, {}), identity.attachments(noted, [])
    noted.set_attachments("lora_metadata", {"ss_network_dim": "2"})
    assert (identity.inversion_key(noted, {}), identity.attachments(noted, [])) == plain


def test_one_too_large_drives_out_no_other(model, inflate, invert, random_clip, cache, monkeypatch):
    inflated = inflate(model)
    kept = invert(inflated, random_clip())[1]
    monkeypatch.setenv(cache.LIMIT_VARIABLE, str(cache.usage().size * 1.5 / 1e6))
    large = random_clip(frames=8, height=32, width=32)
    assert kept.startswith(KEPT) and invert(inflated, large)[1] == "computed, not kept: larger than the cache"
    assert cache.usage().entries == 1 and invert(inflated, random_clip())[1].startswith(FOUND)


def test_what_the_command_line_computes_with_counts(pack, model, inflate, monkeypatch):
    """Other kernels give another inversion."""
    identity, inflated = pack("host.identity"), inflate(model)
    before = identity.inversion_key(inflated, {})
    with monkeypatch.context() as patch:
        patch.setattr(identity, "optimized_attention", lambda q, k, v, heads: q)
        assert identity.inversion_key(inflated, {}) != before
    from comfy.cli_args import PerformanceFeature

    monkeypatch.setattr(identity.args, "fast", {PerformanceFeature.Fp16Accumulation})
    assert identity.inversion_key(inflated, {}) != before


@pytest.mark.parametrize("steps, last", [(201, 801), (150, 895)])
def test_steps_that_end_with_little_noise_are_said(steps, last, pack):
    advice = pack("nodes.invert")._advice
    assert f"{steps} steps end at timestep {last} of 1000" in advice(steps)
    assert not any(advice(good) for good in (2, 12, 25, 50, 67, 100, 125, 200, 250))
