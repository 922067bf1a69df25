"""A long clip, a model tuned on windows of it, and a look at each call of the UNet."""

from __future__ import annotations

import pytest
import torch

FRAMES, LENGTH = 9, 4
WINDOWS = [range(0, 4), range(3, 7), range(5, 9)]  # standard_static
ANCHORS = [0, 4, 8]


@pytest.fixture(scope="module")
def clip(random_clip):
    return random_clip(frames=FRAMES)


@pytest.fixture(scope="module")
def tuned(model, inflate, tune, clip):
    """Tuned on windows, and what was learned."""
    with torch.inference_mode():
        return tune(inflate(model), clip, steps=3, learning_rate=1e-2, window_frames=LENGTH)


def watched(model, see):
    """A clone whose UNet tells `see(options, x)` of each call."""
    from comfy.patcher_extension import WrappersMP

    def watch(executor, x, timesteps, context, *args, **kwargs):
        see(kwargs.get("transformer_options") or args[2], x)
        return executor(x, timesteps, context, *args, **kwargs)

    clone = model.clone()
    clone.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "spy", watch)
    return clone
