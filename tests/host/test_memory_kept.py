"""The estimate of memory against what is really kept, or reserved by the host."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.memory import load

from . import memory_estimates
from .memory_estimates import of_size

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]

estimates, memory = memory_estimates.estimates, memory_estimates.memory


def kept_bytes(model, tune_once) -> int:
    """What a forward pass keeps for its backward pass: the storages autograd saves, but for the weights."""
    saved, kept = {}, []
    unet = model.model.diffusion_model

    def save(tensor):
        if not (tensor.is_leaf and tensor.requires_grad):
            storage = tensor.untyped_storage()
            saved.setdefault(storage.data_ptr(), storage.nbytes())
        return tensor

    def after_forward(*_):
        weights = {weight.untyped_storage().data_ptr() for weight in unet.parameters()}
        kept.append(sum(size for storage, size in saved.items() if storage not in weights))

    handles = [unet.register_forward_pre_hook(lambda *_: saved.clear()), unet.register_forward_hook(after_forward)]
    try:
        with torch.inference_mode(False), torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
            tune_once()
    finally:
        for handle in handles:
            handle.remove()
    return kept[0]


@pytest.mark.parametrize("checkpointing", ["off", "on"])
@pytest.mark.parametrize("size", [(2, 40, 40), (6, 12, 20)], ids=str)
def test_the_estimate_is_what_training_keeps(size, checkpointing, model, inflate, tune, source, random_clip, estimates):
    """One size has fused attention at its first level, the other none; measured 0.97 to 1.03."""
    inflated, clip = inflate(model, "EI2"), random_clip(*size)
    kept = kept_bytes(model, lambda: tune(inflated, clip, steps=1, checkpointing=checkpointing))
    estimate = estimates.training_estimate(inflated, "fp32", source)
    assert 0.9 < estimate.training(estimates.clip_of(clip), checkpointing == "on").kept / kept < 1.1


@pytest.mark.parametrize(
    "options",
    [
        {"spatial": "sca", "temporal": "attention"},
        {"spatial": "dense_sca", "temporal": "none"},
        {"spatial": "dense"},
        {"spatial": "first_frame"},
        {"coarse_factor": 1},
        {"coarse_factor": 4, "coarse_pool": "stride"},
        {"position": "after_spatial"},
    ],
    ids=str,
)
def test_the_estimate_knows_the_options(options, model, inflate, tune, source, random_clip, estimates):
    inflated, clip = inflate(model, **options), random_clip(4, 16, 16)
    kept = kept_bytes(model, lambda: tune(inflated, clip, steps=1))
    estimate = estimates.training_estimate(inflated, "fp32", source)
    assert 0.9 < estimate.training(estimates.clip_of(clip), False).kept / kept < 1.1


def test_bf16_keeps_half_and_copies_of_the_weights(model, inflate, tune, source, random_clip, estimates):
    inflated, clip = inflate(model), random_clip(6, 16, 16)
    kept = kept_bytes(model, lambda: tune(inflated, clip, steps=1, precision="bf16"))
    estimate = estimates.training_estimate(inflated, "bf16", source)
    assert 0.85 < estimate.training(estimates.clip_of(clip), False).kept / kept < 1.15


@pytest.mark.parametrize("preset", ["EI2", "Tune-A-Video", "Video-P2P", "Vid2Vid-zero"])
def test_the_host_reserves_enough_for_the_video(preset, model, inflate, source, estimates, pack):
    """So that its own estimate, by which it makes room and puts prompts together, needs no enlarging: for the
    miniature, and for SD1.5 with fused attention on a GPU."""
    estimate = estimates.inference_estimate(inflate(model, preset), source)
    sd15 = load("sd15", torch.device("cpu"), torch.float16, weights=False)
    fused = pack("ei2.memory_estimate").Arithmetic(torch.device("cuda"), 2, 2)
    shape = estimates.unet_shape(sd15.model.diffusion_model, sd15.model_size())
    for frames in (2, 24, 96):
        clip = replace(estimates.clip_of(of_size(frames)), chunks=2)
        assert estimate.inference(clip).working < model.memory_required([2 * frames, 4, 64, 64])
        host = 2 * frames * 64 * 64 * 2 * 0.01 * 2**20  # the host's rule for fused attention, in fp16
        assert 0.5 < replace(estimate, shape=shape, arithmetic=fused).inference(clip).working / host < 1


def said(caplog, doing: str) -> str:
    """What was said of the last such work: `3.2 GB`."""
    lines = [line.message for line in caplog.records if line.message.startswith(f"EI2: {doing} of ")]
    return lines[-1].split("will need about ")[1].split(" of ")[0]


def test_guidance_counts_both_prompts(
    model, inflate, invert, source, encode, random_clip, caplog, estimates, memory, pack
):
    """As the user sees it."""
    inflated, clip = inflate(model), random_clip(8, 16, 16)
    inversion = invert(inflated, clip, source, steps=2)[0]
    caplog.set_level("INFO")
    estimate, size = estimates.inference_estimate(inflated, source), estimates.clip_of(clip)
    for cfg, chunks in ((7.5, 2), (1.0, 1)):
        pack("nodes.edit_sample").EditSample.execute(inflated, inversion, source, encode(""), cfg)
        assert said(caplog, "sampling") == memory.gigabytes(estimate.inference(replace(size, chunks=chunks)).total)
    assert memory.gigabytes(estimate.inference(replace(size, chunks=2)).total) == "89 MB"


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"self_maps": "both", "self_replace": 1.0},
        {"self_maps": "spatial"},
        {"cross_replace": 0.0},
        {"cross_replace": 0.0, "self_replace": 0.0},
    ],
    ids=str,
)
def test_the_estimate_knows_what_control_keeps(
    choices, model, miniature, inflate, invert, encode, random_clip, pack, monkeypatch
):
    node, control = pack("nodes.attention_control").AttentionControl, pack("host.controlled_unet")
    defaults = dict(
        mode="auto",
        cross_replace=1.0,
        self_replace=1.0,
        self_maps="temporal",
        reweight="",
        blend_source="",
        blend_target="",
        blend_threshold=0.3,
        blend_start=0.2,
        unconditional="decoupled",
    )
    made, positive, _ = node.execute(miniature[1], "a red circle", "a blue circle", **{**defaults, **choices}).args
    inflated, clip = inflate(model), random_clip(4, 16, 16)
    inversion = invert(inflated, clip, encode("a red circle"), steps=2)[0]
    found = []

    class Counting(control.ControlledUNet):
        def next_step(self):
            kept = [one for value in self.kept.values() for one in (value if isinstance(value, tuple) else (value,))]
            size = lambda tensor: tensor.untyped_storage().nbytes()
            sums = sum(size(one.total) for one in self.sums.values())
            found.append((sum(size(one) for one in kept if one is not None) + sums, self))
            super().next_step()

    guidance = pack("host.controlled_sampling")
    monkeypatch.setattr(guidance, "ControlledUNet", Counting)
    pack("nodes.edit_sample").EditSample.execute(inflated, inversion, positive, encode(""), 7.5, made)
    blocks = pack("host.unet").transformer_blocks(model.model.diffusion_model)
    size = pack("ei2.memory_estimate").Clip(4, 16, 16)
    assert 0.99 < found[0][1].kept_bytes(blocks, size, 4) / found[0][0] < 1.01
