"""Other nodes on the same MODEL, put on before the inflation or after the tuning: tuned, inverted and edited with.

Each has its effect (or none, where it cannot), and where the frames' attention steps aside the user hears of it once.
"""

from __future__ import annotations

import logging
from collections import namedtuple

import pytest
import torch

from . import companions
from .companions import COMPANIONS, TAKEN, TOKENS, Companion

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]

tuned = companions.tuned
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
