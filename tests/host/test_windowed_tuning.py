"""Tuning that sees a window of a long clip at a time."""

from __future__ import annotations

from random import Random

import pytest
import torch

from . import long_clip
from .long_clip import FRAMES, LENGTH

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]

clip, tuned = long_clip.clip, long_clip.tuned


def test_windows_are_learned_from(tuned, model, inflate, tune, clip):
    _, result = tuned
    assert result.frames == LENGTH and len(result.losses) == 3
    _, again = tune(inflate(model), clip, steps=3, learning_rate=1e-2, window_frames=LENGTH)
    assert again.losses == result.losses
    assert all(torch.equal(weight, again.query[name]) for name, weight in result.query.items())


def test_tuning_sees_a_window_of_frames_with_their_own_prompts(model, inflate, tune, source, encode, clip):
    texts = source[0][0] * torch.arange(1.0, FRAMES + 1).view(-1, 1, 1) / FRAMES  # tells the frames apart
    seen = []

    def watch(executor, x, timesteps, context, *args, **kwargs):
        seen.append((len(x), (FRAMES * context[:, 0, 0] / source[0][0][0, 0, 0]).round().int().tolist()))
        return executor(x, timesteps, context, *args, **kwargs)

    inflated = inflate(model)
    inflated.add_wrapper_with_key("diffusion_model", "spy", watch)
    tune(inflated, clip, [[texts, dict(source[0][1])]], steps=8, window_frames=LENGTH)
    assert all(frames == LENGTH for frames, _ in seen)
    starts = [own[0] for _, own in seen]
    assert all(own == list(range(start, start + LENGTH)) for start, (_, own) in zip(starts, seen))
    assert len(set(starts)) > 2


def test_tuning_under_a_controlnet(model, inflate, tune, control_net, source, encode, clip):
    """A window's loss is that of its own hints: the same noise, the same frames, other hints for the other frames."""
    hints = torch.rand(FRAMES, 48, 80, 3, generator=torch.Generator().manual_seed(1))
    draw = Random(0).randrange(FRAMES - LENGTH + 1)
    others = hints.flip(0).clone()
    others[draw : draw + LENGTH] = hints[draw : draw + LENGTH]
    losses = [
        tune(inflate(model), clip, control_net[1](source, encode(""), h)[0], steps=1, window_frames=LENGTH)[1].losses
        for h in (hints, others, hints.flip(0))
    ]
    assert losses[0] == losses[1] != losses[2]


def test_a_controlnet_is_cleaned_up(model, inflate, tune, control_net, source, encode, clip):
    """The user's own object, not only the copies for the windows: a Control-LoRA's model would stay on the GPU."""
    hints = torch.rand(FRAMES, 48, 80, 3, generator=torch.Generator().manual_seed(1))
    positive = control_net[1](source, encode(""), hints)[0]
    control, cleaned = positive[0][1]["control"], []
    cleanup = control.cleanup
    control.cleanup = lambda: (cleaned.append(True), cleanup())
    tune(inflate(model), clip, positive, steps=1, window_frames=LENGTH)
    assert cleaned


def test_tuning_ignores_context_windows(tuned, model, inflate, tune, windowed, clip):
    """They may be on the model already."""
    _, result = tune(windowed(inflate(model)), clip, steps=3, learning_rate=1e-2, window_frames=LENGTH)
    assert result.losses == tuned[1].losses


def test_nothing_of_the_hosts_windows_is_left(model, inflate, tune, windowed, invert, source, clip, pack):
    """With freenoise, they put a wrapper on the MODEL that does not run without their handler."""
    inflated = windowed(inflate(model), LENGTH, freenoise=True)
    _, result = tune(inflated, clip, window_frames=LENGTH)
    assert torch.isfinite(torch.tensor(result.losses)).all()
    replaced = pack("host.windows").with_windows(inflated, LENGTH, 1)
    assert invert(replaced, clip, source, steps=2)[0].noise.isfinite().all()


def test_the_host_makes_room_for_a_window_only(model, inflate, tune, source, clip, pack):
    """What is asked of the host's memory management while tuning."""
    import comfy.patcher_extension

    shapes, inflated = [], inflate(model)

    def watch(executor, model, noise_shape, *args, **kwargs):
        shapes.append(list(noise_shape))
        return executor(model, noise_shape, *args, **kwargs)

    kind = comfy.patcher_extension.WrappersMP.PREPARE_SAMPLING
    wrappers = pack("host.windows").room_for(LENGTH)
    inflated.add_wrapper_with_key(kind, "first", wrappers)
    inflated.add_wrapper_with_key(kind, "second", watch)
    tune(inflated, clip, steps=1, window_frames=LENGTH)
    assert shapes == [[LENGTH, *clip.shape[1:]]]
