"""What is decided by the estimate of memory before the work begins, and what the user is told of it."""

from __future__ import annotations

import pytest

from . import memory_estimates
from .memory_estimates import of_size

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]

estimates, memory = memory_estimates.estimates, memory_estimates.memory


def test_auto_checkpoints_when_memory_is_short(model, inflate, source, estimates, memory):
    inflated = inflate(model)

    def plan(frames, choice="auto"):
        return estimates.plan_training("tuning", inflated, of_size(frames), choice, "fp32", source, "AdamW")

    estimate = estimates.training_estimate(inflated, "fp32", source)
    plain = lambda clip: estimate.training(clip, False)
    free = memory.available_memory(model.load_device)
    most = estimate.frames_that_fit(estimates.clip_of(of_size(1)), free, plain)
    assert not plan(2).checkpointing and plan(most).checkpointing
    assert plan(2, "on").checkpointing and not plan(most // 2, "off").checkpointing
    assert plan(2, "on").reserve < plan(2, "off").reserve


def test_what_can_never_fit_is_refused_before_it_starts(model, inflate, tune, source, estimates, pack, encode):
    inflated, clip = inflate(model), of_size(50_000)
    said = r"Tuning of 50000 frames of 512 x 512 pixels would need about .* GB of memory, but the device has only .* GB"
    remedy = r": set window_frames to \d+ or fewer, or load fewer frames"
    with pytest.raises(ValueError, match=said + remedy) as found:
        tune(inflated, clip, checkpointing="auto")
    assert str(found.value).endswith(" frames of this size would fit.")
    fits = int(str(found.value).rsplit("about ", 1)[1].split()[0])

    def plan(frames):
        return estimates.plan_training("tuning", inflated, of_size(frames), "on", "fp32", source, "AdamW")

    assert plan(fits).checkpointing
    with pytest.raises(ValueError, match="would fit"):
        plan(fits + fits // 20 + 1)
    with pytest.raises(ValueError, match="set gradient_checkpointing to auto"):
        tune(inflated, clip, checkpointing="off")
    with pytest.raises(ValueError, match="not even one frame of this size would fit"):
        tune(inflated, of_size(3, 16_000))
    with pytest.raises(ValueError, match="Inversion of 500000 frames .* would need about .* load fewer frames"):
        pack("host.sampling").invert(inflated, of_size(500_000), source, 2, 0)


def test_it_is_said_what_is_needed_and_what_is_free(model, inflate, tune, random_clip, caplog, encode, pack):
    caplog.set_level("INFO")
    inflated = inflate(model)
    tune(inflated, random_clip(), steps=1, checkpointing="auto")
    assert "EI2: tuning of 3 frames of 80 x 48 pixels without gradient checkpointing will need about" in caplog.text
    pack("host.sampling").invert(inflated, random_clip(), encode("a red circle"), 2, 0)
    assert "EI2: inversion of 3 frames of 80 x 48 pixels will need about" in caplog.text and "is free." in caplog.text
