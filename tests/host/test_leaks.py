"""Whatever is done with a clone, the MODEL itself stays byte for byte what it was, and its modules carry nothing."""

from __future__ import annotations

import pytest
import torch

from tests.traces import fingerprint, leftovers

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]


def carries(model) -> list:
    """What a MODEL carries: patches, object patches, wrappers, additional models, options."""
    parts = [sorted(model.patches), sorted(model.object_patches), sorted(model.additional_models)]
    return [*parts, str(model.wrappers), str(model.model_options)]


class Cancelled(Exception):
    pass


def cancel_in_step(steps):
    for step in steps:
        if step.number == 2:
            raise Cancelled


def scenario_inflate(model, tools):
    tools.inflate(model)


def scenario_evaluate(model, tools):
    tools.evaluate(tools.inflate(model), tools.clip, tools.source)


def scenario_tune(model, tools, **options):
    tuned, _ = tools.tune(tools.inflate(model), tools.clip, steps=3, **options)
    tools.evaluate(tuned, tools.clip, tools.source)


def scenario_tune_checkpointed(model, tools):
    scenario_tune(model, tools, checkpointing="on")


def scenario_tune_bf16(model, tools):
    scenario_tune(model, tools, precision="bf16")


def scenario_edit(model, tools):
    tuned, _ = tools.tune(tools.inflate(model), tools.clip)
    node = tools.pack("nodes.invert").Invert
    inversion = node.execute(tuned, {"samples": tools.clip}, tools.source, 4, 1).args[0]
    tools.pack("nodes.edit_sample").EditSample.execute(tuned, inversion, tools.source, tools.source, 3.0)


def scenario_cancelled(model, tools, checkpointing="off"):
    tuning, settings = tools.pack("host.tuning"), tools.pack("ei2.tuning").TuneSettings(steps=9)
    with pytest.raises(Cancelled):
        tuning.tune_model(tools.inflate(model), tools.clip, tools.source, settings, checkpointing, cancel_in_step)


def scenario_cancelled_checkpointed(model, tools):
    scenario_cancelled(model, tools, "on")


def scenario_broken_down(model, tools):
    """The clip is so bright that float32 overflows."""
    with pytest.raises(RuntimeError, match="at step 1 of 2 and the tuning was stopped; the model is unchanged. Lower"):
        tools.tune(tools.inflate(model), tools.clip * 1e30)


def scenario_failing_call(model, tools):
    """Another node's patch fails in the middle of the UNet, while the hooks are in place."""

    def fails(x, options):
        if options["block"][0] == "middle":
            raise Cancelled
        return x

    inflated = tools.inflate(model)
    inflated.set_model_patch(fails, "middle_patch")
    with pytest.raises(Cancelled):
        tools.evaluate(inflated, tools.clip, tools.source)
    with pytest.raises(Cancelled):
        tools.tune(inflated, tools.clip, checkpointing="on")


SCENARIOS = [value for name, value in list(globals().items()) if name.startswith("scenario_")]


class Tools:
    pass


@pytest.fixture
def tools(pack, inflate, tune, evaluate, source, random_clip):
    tools = Tools()
    tools.pack, tools.inflate, tools.tune, tools.evaluate, tools.source = pack, inflate, tune, evaluate, source
    tools.clip = random_clip()
    return tools


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__.removeprefix("scenario_"))
def test_the_model_stays_as_it_is(scenario, model, tools):
    expected = tools.evaluate(model, tools.clip, tools.source)
    before, carried = fingerprint(model), carries(model)
    assert not leftovers(model)

    scenario(model, tools)

    assert not leftovers(model)
    assert carries(model) == carried
    result = tools.evaluate(model, tools.clip, tools.source)  # the host puts the original weights back when it loads
    assert torch.equal(result, expected)
    assert fingerprint(model) == before
    assert not leftovers(model)


def test_the_fingerprint_can_tell(model):
    """A single changed weight is noticed."""
    parameter = next(model.model.parameters())
    before, value = fingerprint(model), parameter[(0,) * parameter.ndim].item()
    parameter[(0,) * parameter.ndim] += 1e-3
    changed = fingerprint(model)
    parameter[(0,) * parameter.ndim] = value
    assert changed != before == fingerprint(model)


def test_cancelled_by_the_user_then_run_again(model, tools):
    """The host's own interruption; the next run gives exactly what it would have given."""
    import comfy.model_management as management

    inflated = tools.inflate(model)
    _, expected = tools.tune(inflated, tools.clip, steps=3)
    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException):
        tools.tune(inflated, tools.clip, steps=3)
    assert not management.processing_interrupted()
    scenario_cancelled(model, tools)
    _, again = tools.tune(inflated, tools.clip, steps=3)
    assert again.losses == expected.losses
    for name, weight in {**expected.temporal, **expected.query}.items():
        assert torch.equal(weight, {**again.temporal, **again.query}[name]), name


def test_the_inflated_and_the_tuned_model_stay_usable_side_by_side(model, tools):
    """All are clones of one model and the host swaps their weights in and out."""
    inflated = tools.inflate(model)
    tuned, _ = tools.tune(inflated, tools.clip, learning_rate=1e-2)
    other, _ = tools.tune(inflated, tools.clip, learning_rate=1e-2, seed=7)
    models = [model, inflated, tuned, other]
    first = [tools.evaluate(m, tools.clip, tools.source) for m in models]
    again = [tools.evaluate(m, tools.clip, tools.source) for m in reversed(models)][::-1]
    for i, (a, b) in enumerate(zip(first, again)):
        assert torch.equal(a, b), i
        assert all((a - other).abs().max() > 1e-4 for other in first[:i]), i
