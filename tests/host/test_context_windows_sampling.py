"""Inversion and sampling through context windows: the same windows both ways, and the clip comes back."""

from __future__ import annotations

import pytest
import torch

from . import long_clip
from .long_clip import watched

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]

clip, tuned = long_clip.clip, long_clip.tuned


@pytest.mark.parametrize("schedule", ["standard_static", "standard_uniform", "looped_uniform", "batched"])
def test_inversion_and_sampling_take_the_same_windows(schedule, tuned, windowed, invert, sample, source, clip):
    seen: dict[float, list] = {}

    def see(options, x):
        seen.setdefault(round(float(options["sigmas"][0]), 4), []).append(tuple(options["context_window"].index_list))

    model = windowed(watched(tuned[0], see), schedule=schedule)
    inversion = invert(model, clip, source)[0]
    there = dict(seen)
    seen.clear()
    sample(model, inversion, source, source)
    assert seen == there and len(there) == 4
    if "uniform" in schedule:
        assert len(set(map(tuple, there.values()))) > 1


def test_the_reconstruction_is_the_clip(pack, miniature, model, inflate, windowed, invert, sample, source):
    clips, scene, psnr = pack("miniature.clips"), pack("miniature.scene"), pack("ei2.measures").psnr
    frames = scene.render(clips.square_clip()[:6:2]).movedim(1, -1)
    inflated, latents = windowed(inflate(model), 2, 1), miniature[2].encode(frames)
    inversion = invert(inflated, latents, source, 16)[0]
    restored = sample(inflated, inversion, source, source)
    assert psnr(miniature[2].decode(restored).cpu().clamp(0, 1), frames) > 25


def test_edit_sample_is_the_hosts_sampler_custom(tuned, windowed, invert, sample, source, encode, clip, host_node):
    from comfy.samplers import sampler_object

    model, prompt, empty = windowed(tuned[0]), encode("a red circle on a striped blue background"), encode("")
    inversion, noise, sigmas, *_ = invert(model, clip, source)
    inputs = (model, False, 1, 4.0, prompt, empty, sampler_object("ddim"), sigmas, noise)
    expected = host_node("nodes_custom_sampler", "SamplerCustom", *inputs)[0]["samples"]
    torch.testing.assert_close(sample(model, inversion, prompt, empty, 4.0), expected, atol=1e-5, rtol=0)


def test_prompts_for_areas_keep_their_own_coarse_tokens(
    tuned, windowed, invert, sample, source, encode, clip, pack, monkeypatch
):
    """The host gives a negative for a positive's area the positive's id."""
    tokens, kept = pack("ei2.windows").CoarseTokens, set()
    keep = tokens.keep
    monkeypatch.setattr(tokens, "keep", lambda self, places, *rest: (kept.update(places), keep(self, places, *rest))[1])
    model = windowed(tuned[0])
    inversion = invert(model, clip, source, steps=2)[0]
    kept.clear()
    text, options = encode("a red circle")[0]
    part = [text, {**options, "area": (4, 6, 0, 2), "strength": 1.0}]
    sample(model, inversion, [*source, part], encode(""), 4.0)
    assert {len([place for place in kept if place[0] == path]) for path, *_ in kept} == {4}  # prompts: 2 each
