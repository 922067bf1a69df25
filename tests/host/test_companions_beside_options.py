"""Other nodes on the same MODEL beside the pack's own options: checkpointing, null_text and attention control."""

from __future__ import annotations

import pytest
import torch

from . import companions, controlled_edit
from .companions import COMPANIONS

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]

tuned = companions.tuned
control, edit = controlled_edit.control, controlled_edit.edit


@pytest.fixture
def inversion(pack, tuned, random_clip, source):
    return pack("nodes.invert").Invert.execute(tuned[0], {"samples": random_clip(2, 8, 8)}, source, 4, 0).args[0]


@pytest.mark.parametrize("name", ["LoRA", "IP-Adapter as attn2 patch", "FreeU_V2", "HyperTile", "SAG", "EasyCache"])
def test_tuned_with_checkpointing(name, model, inflate, tune, random_clip, host_node):
    inflated = inflate(COMPANIONS[name].apply(model, host_node), "EI2")
    (_, off), (_, on) = (tune(inflated, random_clip(2, 8, 8), steps=3, checkpointing=c) for c in ("off", "on"))
    assert on.losses == pytest.approx(off.losses, abs=1e-5)


@pytest.mark.parametrize("name", ["FreeU_V2", "SAG", "PAG", "RescaleCFG", "HyperTile", "EasyCache"])
def test_null_text_beside_it(name, tuned, pack, source, encode, random_clip, host_node):
    model = COMPANIONS[name].apply(tuned[0], host_node)
    inversion = (
        pack("nodes.invert")
        .Invert.execute(
            model, {"samples": random_clip(2, 8, 8)}, source, 3, 0, null_text=True, null_inner_steps=2, empty=encode("")
        )
        .args[0]
    )
    assert torch.isfinite(inversion.unconditional).all()
    assert (inversion.unconditional - encode("")[0][0]).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["PAG", "SAG", "RescaleCFG"])
def test_attention_control_gives_the_source_back_in_spite_of_it(
    name, tuned, pack, miniature, source, random_clip, host_node
):
    """The source's branch retraces the inversion, where other nodes' guidance was off; the edit's is guided by it."""
    sources, edits = [], []
    control = pack("nodes.attention_control").AttentionControl
    options = {one.id: getattr(one, "default", None) for one in control.define_schema().inputs} | {
        "clip": miniature[1],
        "source_prompt": "a blue square on a dotted white background",
        "target_prompt": "a red circle on a dotted white background",
    }
    made = control.execute(**options).args[0]
    empty = miniature[1].encode_from_tokens_scheduled(miniature[1].tokenize(""))
    for model in (tuned[0], COMPANIONS[name].apply(tuned[0], host_node)):
        plain = tuned[0] if name != "SAG" else model  # SAG's replacement of the middle block stays in force
        inversion = pack("nodes.invert").Invert.execute(plain, {"samples": random_clip(2, 8, 8)}, source, 3, 0).args[0]
        found = pack("host.controlled_sampling").sample_controlled(
            model, inversion.noise, inversion, made, made.target_conditioning, empty, 4.0
        )
        sources.append(found.source)
        edits.append(found.target)
    assert (edits[0] - edits[1]).abs().max() > 1e-2
    if name != "SAG":
        assert (sources[0] - sources[1]).abs().max() <= 1e-4
    assert torch.isfinite(sources[1]).all()


CACHES = ["EasyCacheNode", "LazyCacheNode"]


@pytest.mark.parametrize("cache", CACHES)
def test_caches_that_skip_steps_are_off_under_attention_control(
    cache, tuned, pack, edit, control, inversion, host_node
):
    """They would skip the source's call and not the target's."""
    cached = host_node("nodes_easycache", cache, tuned[0], 0.5, 0.0, 1.0, False)[0]
    controlled = control(cross_replace=0.5, self_replace=0.5)
    found, plain = (edit(model, inversion, controlled) for model in (cached, tuned[0]))
    assert torch.equal(found.target, plain.target) and torch.equal(found.source, plain.source)


@pytest.mark.parametrize("cache", CACHES)
def test_caches_that_skip_steps_do_not_mix_windows(cache, pack, model, inflate, source, encode, random_clip, host_node):
    windowed = pack("nodes.context_windows").ContextWindows.execute(inflate(model), 4, 1).args[0]
    cached = host_node("nodes_easycache", cache, windowed, 0.5, 0.0, 1.0, False)[0]
    sample, sigmas = pack("host.sampling").sample, torch.tensor([3.0, 2.0, 1.5, 1.0, 0.0])
    clip = random_clip(frames=7)
    found, plain = (sample(one, clip, source, encode(""), 4.0, sigmas) for one in (cached, windowed))
    assert torch.isfinite(found).all() and (cache == "LazyCacheNode" or torch.equal(found, plain))


def test_another_packs_own_forward_of_a_block_stays(model, inflate, tune, random_clip):
    """Checkpointing puts its own in its place for a call, and puts back what was there."""
    block = model.model.diffusion_model.middle_block[1].transformer_blocks[0]
    plain, calls = block.forward, []

    def theirs(*args, **kwargs):
        calls.append(1)
        return plain(*args, **kwargs)

    block.forward = theirs
    try:
        tune(inflate(model), random_clip(2, 8, 8), steps=2, checkpointing="on")
        assert vars(block)["forward"] is theirs and calls
    finally:
        del block.forward
    tune(inflate(model), random_clip(2, 8, 8), steps=1, checkpointing="on")
    assert "forward" not in vars(block)
