"""The covariate shift of models in the real host, and the node that shows it."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
import torch

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]

MEASURES = ("mean", "log_std", "module_mean", "module_log_std")
NO_EXCHANGE = {"spatial": "none"}


@pytest.fixture(scope="module")
def covariate_shift(pack):
    return pack("host.shift").covariate_shift


@pytest.fixture(scope="module")
def probe(pack):
    """The node: `probe(model, clip, positive, timesteps, compare_with)` -> plot, table."""
    node = pack("nodes.shift_probe").ShiftProbe
    return lambda model, clip, *rest: node.execute(model, {"samples": clip}, *rest).args


@pytest.fixture(scope="module")
def stack_of(pack):
    """The temporal modules of an inflated MODEL."""
    return lambda model: pack("host.inflation").require_inflation(model).stack


@pytest.fixture(scope="module")
def perturb(stack_of):
    """Gives the temporal modules an output, of a size that tuning does not reach."""

    def perturb(model):
        for i, module in enumerate(stack_of(model).values()):
            module.to_out.weight.normal_(std=0.3, generator=torch.Generator().manual_seed(i))
        return model

    return perturb


@pytest.mark.parametrize("position", ["after_feed_forward", "after_spatial"])
@pytest.mark.parametrize("temporal", ["stam", "attention", "none"])
def test_a_model_that_changes_nothing_has_no_shift(
    temporal, position, covariate_shift, model, inflate, source, random_clip
):
    position = {} if temporal == "none" else {"position": position}
    inflated = inflate(model, temporal=temporal, **position, **NO_EXCHANGE)
    found = covariate_shift(inflated, random_clip(), source, [200, 800])
    assert all(getattr(found, measure) == [0.0] * 7 for measure in MEASURES)
    assert found.blocks == ["input 1", "input 3", "middle", "output 0", "output 1", "output 2", "output 3"]
    assert found.timesteps == [200, 800]


def test_spatial_attention_shifts_features_but_not_through_a_module(
    covariate_shift, model, inflate, source, random_clip
):
    found = covariate_shift(inflate(model), random_clip(), source, [500])
    assert min(found.mean) > 1e-3 and min(found.log_std) > 1e-3
    assert found.module_mean == found.module_log_std == [0.0] * 7  # untuned, W_O = 0


def shift_in_numpy(changed: torch.Tensor, reference: torch.Tensor) -> tuple[float, float]:
    """By the definition, with every std far from zero."""
    a, b = (x.double().numpy().reshape(-1, x.shape[-1]) for x in (changed, reference))
    assert b.std(0).min() > 0.05 * b.std(0).mean()
    return np.mean(np.abs(a.mean(0) - b.mean(0)) / b.std(0)), np.mean(np.abs(np.log(a.std(0) / b.std(0))))


def watched(model, position: str):
    """A clone of a MODEL before inflation, and a dictionary that receives the features `(b f) d c` of every block at
    this position, in front of a temporal module that inflation adds. Hooks stay until `release()` is called."""
    features, handles, clone = defaultdict(list), [], model.clone()
    if position == "after_spatial":
        keep = lambda x, options: features[options["block"]].append(x.clone()) or x
        clone.set_model_patch(keep, "middle_patch")
    else:
        unet = model.model.diffusion_model
        parents = [("input", 1, unet.input_blocks[1]), ("input", 3, unet.input_blocks[3])]
        parents += [("middle", 0, unet.middle_block), *(("output", i, unet.output_blocks[i]) for i in range(4))]
        for kind, i, parent in parents:
            block = next(m for m in parent.modules() if type(m).__name__ == "BasicTransformerBlock")
            keep = lambda _, __, output, place=(kind, i): features[place].append(output.clone())
            handles.append(block.register_forward_hook(keep))
    return clone, features, lambda: [handle.remove() for handle in handles]


@pytest.mark.parametrize("position", ["after_feed_forward", "after_spatial"])
@pytest.mark.parametrize("temporal", ["stam", "attention"])
def test_shift_against_the_definition(
    temporal, position, covariate_shift, model, inflate, stack_of, perturb, evaluate, source, random_clip
):
    """The test looks in front of the modules and applies them itself; the host sees one frame at a time."""
    clip, timesteps, seed = random_clip(frames=3), [150, 700], 5
    scale = model.model.latent_format.scale_factor
    sigmas = model.get_model_object("model_sampling").sigmas
    noise = torch.randn(len(timesteps), *clip.shape, generator=torch.Generator().manual_seed(seed))

    clone, features, release = watched(model, position)
    inflated = perturb(inflate(clone, temporal=temporal, position=position))
    expected = defaultdict(list)
    try:
        for timestep, n in zip(timesteps, noise):
            sigma = sigmas[timestep].item()
            noisy = clip + sigma * n / scale
            for i in range(3):
                evaluate(clone, noisy[i : i + 1], source, sigma=sigma)
            host = {place: torch.cat(found) for place, found in features.items()}
            features.clear()
            evaluate(inflated, noisy, source, sigma=sigma)
            for place, module in zip(host, stack_of(inflated).values()):
                entering = features[place][0]
                leaving = module(entering, 3)
                both = (*shift_in_numpy(leaving, host[place]), *shift_in_numpy(leaving, entering))
                expected[place].append(both)
            features.clear()
    finally:
        release()

    found = covariate_shift(inflated, clip, source, timesteps, seed)
    values = np.mean(list(expected.values()), axis=1)
    assert values.shape == (7, 4) and values[:, 2:].max() > 0.01  # the modules do something
    for column, measure in zip(values.T, MEASURES):
        np.testing.assert_allclose(getattr(found, measure), column, rtol=1e-3, atol=1e-5, err_msg=measure)


def test_stam_shifts_less_than_temporal_attention(covariate_shift, model, inflate, tune, source, random_clip):
    """EI²'s claim, after equal tuning."""
    clip, shifts = random_clip(frames=4), {}
    for temporal in ("stam", "attention"):
        tuned, _ = tune(inflate(model, temporal=temporal), clip, steps=10)
        shifts[temporal] = covariate_shift(tuned, clip, source, [300, 700])
    assert shifts["stam"].average("module_mean") < 0.1 * shifts["attention"].average("module_mean")
    assert shifts["stam"].average("mean") < shifts["attention"].average("mean")


def test_other_nodes_guidance_is_off(covariate_shift, model, inflate, tune, source, random_clip, host_node):
    tuned, _ = tune(inflate(model), random_clip(), learning_rate=1e-2)
    guided = host_node("nodes_pag", "PerturbedAttentionGuidance", tuned, 3.0)[0]
    found, plain = (covariate_shift(one, random_clip(), source, [200, 800]) for one in (guided, tuned))
    assert found.mean == plain.mean and found.log_std == plain.log_std


def test_the_seed_decides_the_noise(covariate_shift, model, inflate, source, random_clip):
    look = lambda seed: covariate_shift(inflate(model), random_clip(), source, [900], seed)
    assert look(3) == look(3) != look(4)


def test_the_host_has_neither_tuned_queries_nor_modules(covariate_shift, model, inflate, tune, source, random_clip):
    """Tuned q projections count as part of the video model: they do shift features."""
    clip, inflated = random_clip(), inflate(model, temporal="none", **NO_EXCHANGE)
    tuned, _ = tune(inflated, clip, learning_rate=1e-2)
    found = covariate_shift(tuned, clip, source, [500])
    assert min(found.mean) > 1e-4 and found.module_mean == [0.0] * 7


def hooks(*modules) -> list[str]:
    kinds = ("_forward_pre_hooks", "_forward_hooks")
    return [name for m in modules for name, child in m.named_modules() if any(getattr(child, k) for k in kinds)]


class Stopped(Exception):
    pass


def stop():
    raise Stopped


def fail_in_the_middle(x, options):
    if options["block"][0] == "middle":
        raise Stopped
    return x


@pytest.mark.parametrize("position", ["after_feed_forward", "after_spatial"])
@pytest.mark.parametrize("end", ["finished", "stopped", "failed", "interrupted"])
def test_nothing_is_left_behind(
    end, position, covariate_shift, model, inflate, stack_of, perturb, evaluate, source, random_clip
):
    import comfy.model_management as management

    clip, inflated = random_clip(), perturb(inflate(model, position=position))
    before = [evaluate(one, clip, source) for one in (model, inflated)]
    carried = [str(one.wrappers) + str(one.model_options) for one in (model, inflated)]
    if end == "finished":
        covariate_shift(inflated, clip, source, [500])
    elif end == "stopped":
        with pytest.raises(Stopped):
            covariate_shift(inflated, clip, source, [500], on_step=stop)
    elif end == "failed":
        failing = inflated.clone()
        failing.set_model_patch(fail_in_the_middle, "middle_patch")
        with pytest.raises(Stopped):
            covariate_shift(failing, clip, source, [500])
    else:
        management.interrupt_current_processing(True)
        check = management.throw_exception_if_processing_interrupted  # as the node's progress does
        with pytest.raises(management.InterruptProcessingException):
            covariate_shift(inflated, clip, source, [500], on_step=check)
        assert not management.processing_interrupted()
    assert not hooks(model.model, stack_of(inflated))
    assert [str(one.wrappers) + str(one.model_options) for one in (model, inflated)] == carried
    for one, expected in zip((model, inflated), before):
        assert torch.equal(evaluate(one, clip, source), expected)


def test_progress_is_told_after_every_run_of_the_unet(covariate_shift, model, inflate, source, random_clip):
    steps = []
    covariate_shift(inflate(model), random_clip(), source, [100, 900], on_step=lambda: steps.append(1))
    assert len(steps) == 4


def test_node(probe, covariate_shift, model, inflate, tune, source, random_clip):
    clip = random_clip()
    ours, _ = tune(inflate(model), clip)
    plot, table = probe(ours, clip, source, "100, 900")
    assert plot.ndim == 4 and plot.shape[0] == 1 and plot.shape[3] == 3
    assert 0 <= plot.min() < 0.2 and 0.8 < plot.max() <= 1
    shift = covariate_shift(ours, clip, source, [100, 900])
    assert table == f"model (EI2), timesteps 100, 900\n\n{shift.table()}\n"


def test_node_with_a_rival(probe, covariate_shift, model, inflate, tune, source, random_clip):
    clip = random_clip()
    ours, _ = tune(inflate(model), clip)
    rival, odd = inflate(model, "Tune-A-Video"), inflate(model, spatial="none")
    alone, single = probe(ours, clip, source, "500")
    both, table = probe(ours, clip, source, "500", rival)
    first, second = table.split("\n\ncompare_with")
    assert first == single.rstrip("\n")
    assert second.startswith(" (Tune-A-Video, untuned), timesteps 500\n")
    assert covariate_shift(rival, clip, source, [500]).table() in second
    assert both.shape == alone.shape and not torch.equal(both, alone)
    assert "compare_with (custom, untuned)" in probe(ours, clip, source, "500", odd)[1]


@pytest.mark.parametrize(
    "text, numbers",
    [("100, 300, 500", [100, 300, 500]), ("0", [0]), (" 999 ,1;20\n300,", [999, 1, 20, 300]), ("5 5, 5", [5])],
)
def test_timesteps_as_people_write_them(text, numbers, pack):
    node = pack("nodes.shift_probe")
    assert node.parse_timesteps(text) == numbers
    assert node.ShiftProbe.validate_inputs(text) is True


@pytest.mark.parametrize("text", ["", " , ", "many", "100, x", "-5", "1.5", "100..300", "1e3", "٣"])
def test_nonsense_for_timesteps_is_refused(text, probe, pack, model, inflate, source, random_clip):
    with pytest.raises(ValueError, match="^timesteps is .*: give whole numbers separated by commas, such as 100, 300"):
        probe(inflate(model), random_clip(), source, text)
    assert "give whole numbers" in pack("nodes.shift_probe").ShiftProbe.validate_inputs(text)


def test_a_timestep_the_model_does_not_have_is_refused(probe, covariate_shift, model, inflate, source, random_clip):
    with pytest.raises(ValueError, match="timesteps hold 1000: give whole numbers from 0 .clean. to 999 .noise."):
        probe(inflate(model), random_clip(), source, "100, 1000")
    with pytest.raises(ValueError, match="timesteps are empty"):
        covariate_shift(inflate(model), random_clip(), source, [])


def test_unfit_inputs_are_refused(probe, model, inflate, tune, source, encode, random_clip):
    clip, inflated = random_clip(), inflate(model)
    with pytest.raises(ValueError, match="model is not inflated"):
        probe(model, clip, source, "500")
    with pytest.raises(ValueError, match="model is not inflated"):
        probe(inflated, clip, source, "500", model)
    with pytest.raises(ValueError, match="9 channels"):
        probe(inflated, clip.repeat(1, 3, 1, 1)[:, :9], source, "500")
    pair = [[torch.cat([source[0][0]] * 2), {}]]
    with pytest.raises(ValueError, match="positive holds 2 prompts, but the video has 3 frames"):
        probe(inflated, clip, pair, "500")
    tuned, _ = tune(inflated, clip)
    with pytest.raises(ValueError, match="tuned on 3 frames, but the latent has 2"):
        probe(inflated, clip[:2], source, "500", tuned)


def test_a_prompt_that_is_switched_off_is_refused(probe, model, inflate, source, random_clip):
    late = [[tokens, {**options, "start_percent": 0.5, "end_percent": 1.0}] for tokens, options in source]
    with pytest.raises(ValueError, match="positive must cover the whole picture at every step"):
        probe(inflate(model), random_clip(), late, "100, 990")


def test_features_that_are_not_numbers_are_reported(probe, model, inflate, stack_of, source, random_clip):
    inflated = inflate(model)
    next(iter(stack_of(inflated).values())).to_out.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="NaN or infinite features"):
        probe(inflated, random_clip(), source, "500")
