"""Fixtures for sampling under attention control: a small tuned model, its inversion, a control and the edit."""

from __future__ import annotations

import pytest
import torch

SOURCE = "a blue square on a dotted white background"
TARGET = "a red circle on a dotted white background"
LONGER = "a big red circle on a dotted white background"
FRAMES, STEPS = 3, 4


@pytest.fixture(scope="module")
def control(pack, miniature):
    """What "EI2 Attention Control" makes: `control(target, cross_replace=1.0, ...)`."""

    def control(target=TARGET, **options):
        node = pack("nodes.attention_control").AttentionControl
        defaults = {one.id: getattr(one, "default", None) for one in node.define_schema().inputs}
        del defaults["clip"], defaults["source_prompt"], defaults["target_prompt"]
        options = {**defaults, "cross_replace": 0.0, "self_replace": 0.0, **options}
        return node.execute(clip=miniature[1], source_prompt=SOURCE, target_prompt=target, **options).args[0]

    return control


@pytest.fixture(scope="module")
def tuned(model, inflate, tune, random_clip):
    """A tuned EI² MODEL; its temporal modules do something."""
    with torch.inference_mode():
        return tune(inflate(model, "EI2"), random_clip(FRAMES, 8, 8), steps=3, learning_rate=3e-3)[0]


@pytest.fixture(scope="module")
def inversion(pack, tuned, random_clip, source):
    with torch.inference_mode():
        node, latent = pack("nodes.invert").Invert, {"samples": random_clip(FRAMES, 8, 8)}
        return node.execute(tuned, latent, source, STEPS, 0).args[0]


@pytest.fixture(scope="module")
def edit(pack, encode):
    """`edit(model, inversion, control, cfg)` -> ControlledSample."""

    def edit(model, inversion, control, cfg=5.0, negative=""):
        return pack("host.controlled_sampling").sample_controlled(
            model, inversion.noise, inversion, control, control.target_conditioning, encode(negative), cfg
        )

    return edit
