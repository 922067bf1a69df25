"""Inversion and sampling through the host: equal to its own nodes, and back to the clip."""

from __future__ import annotations

import pytest
import torch

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]

STEPS = 10


@pytest.fixture(scope="module")
def invert(invert):
    return lambda model, clip, positive, steps=STEPS, refine=0: invert(model, clip, positive, steps, refine)[:3]


@pytest.fixture(scope="module")
def tuned(model, inflate, tune, random_clip):
    with torch.inference_mode():
        return tune(inflate(model), random_clip(), learning_rate=1e-2)[0]


@pytest.fixture(scope="module")
def rendered(pack, miniature):
    """Two frames of a clip, `f h w 3`, and their latents."""
    clips, scene = pack("miniature.clips"), pack("miniature.scene")
    with torch.inference_mode():
        frames = scene.render(clips.square_clip()[:7:6]).movedim(1, -1)
        return frames, miniature[2].encode(frames)


def test_sigmas_and_outputs(tuned, invert, source, random_clip):
    inversion, noise, sigmas = invert(tuned, random_clip(), source)
    assert sigmas.shape == (STEPS + 1,) and sigmas[-1] == 0 and (sigmas.diff() < 0).all()
    assert inversion.frames == 3 and torch.equal(noise["samples"], inversion.noise)
    assert torch.equal(inversion.source, random_clip())
    assert torch.isfinite(inversion.noise).all()


@pytest.mark.parametrize("sampler", ["ddim", "euler"])
@pytest.mark.parametrize("cfg", [1.0, 7.5])
def test_edit_sample_is_the_hosts_sampler_custom(
    sampler, cfg, tuned, invert, sample, source, encode, random_clip, host_node
):
    from comfy.samplers import sampler_object

    prompt, empty = encode("a red circle on a striped blue background"), encode("")
    inversion, noise, sigmas = invert(tuned, random_clip(), source)
    inputs = (tuned, False, 123, cfg, prompt, empty, sampler_object(sampler), sigmas, noise)
    expected = host_node("nodes_custom_sampler", "SamplerCustom", *inputs)[0]["samples"]
    torch.testing.assert_close(sample(tuned, inversion, prompt, empty, cfg), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("steps", [5, 10])
def test_edit_sample_is_the_hosts_advanced_ksampler(steps, tuned, invert, sample, source, encode, random_clip):
    """Where the steps divide 1000, the host's scheduler `ddim_uniform` is the same grid."""
    from nodes import KSamplerAdvanced

    inversion, noise, _ = invert(tuned, random_clip(), source, steps)
    options = ("ddim", "ddim_uniform", source, encode(""), noise, 0, 10000, "disable")
    (expected,) = KSamplerAdvanced().sample(tuned, "disable", 5, steps, 4.0, *options)
    assert torch.equal(sample(tuned, inversion, source, encode(""), 4.0), expected["samples"])


def test_inversion_and_sampling_are_deterministic(tuned, invert, sample, source, random_clip):
    first, second = (invert(tuned, random_clip(), source)[0] for _ in range(2))
    assert torch.equal(first.noise, second.noise)
    assert torch.equal(sample(tuned, first, source, source), sample(tuned, second, source, source))


def test_an_inversion_is_not_changed_by_sampling(tuned, invert, sample, source, encode, random_clip):
    inversion = invert(tuned, random_clip(), source)[0]
    noise = inversion.noise.clone()
    first = sample(tuned, inversion, encode("a green star"), encode(""), 5.0)
    assert torch.equal(inversion.noise, noise)
    assert torch.equal(sample(tuned, inversion, encode("a green star"), encode(""), 5.0), first)


def test_the_reconstruction_is_the_clip(model, inflate, miniature, rendered, invert, sample, source, encode, pack):
    frames, latents = rendered
    inflated, psnr = inflate(model), pack("ei2.measures").psnr
    inversion = invert(inflated, latents, source, 20)[0]
    restored = sample(inflated, inversion, source, encode(""))
    assert psnr(miniature[2].decode(restored).cpu().clamp(0, 1), frames) > 25
    refined = sample(inflated, invert(inflated, latents, source, 20, refine=1)[0], source, encode(""))
    error = (restored - latents).square().mean()
    assert (refined - latents).square().mean() < 0.5 * error
    assert psnr(miniature[2].decode(refined).cpu().clamp(0, 1), frames) > 25


def test_an_edit_is_not_the_clip(model, inflate, rendered, invert, sample, source, encode):
    latents = rendered[1]
    inflated = inflate(model)
    inversion = invert(inflated, latents, source)[0]
    plain = sample(inflated, inversion, source, encode(""))
    edit = sample(inflated, inversion, encode("a red circle on a dotted green background"), encode(""), 7.5)
    assert (edit - latents).square().mean() > 4 * (plain - latents).square().mean()


def test_v_prediction_inverts_and_samples_like_epsilon(
    model, inflate, predicting_v, rendered, invert, sample, source, encode
):
    """The same knowledge in another form has to give the same noise and the same edit."""
    latents = rendered[1]
    results = []
    for clone in (inflate(model), inflate(predicting_v(model))):
        inversion = invert(clone, latents, source)[0]
        edit = sample(clone, inversion, encode("a red circle on a dotted white background"), encode(""), 3.0)
        results.append((inversion.noise, edit))
    (noise, edit), (noise_v, edit_v) = results
    torch.testing.assert_close(noise_v, noise, atol=1e-2, rtol=1e-3)
    torch.testing.assert_close(edit_v, edit, atol=1e-2, rtol=1e-3)


def test_v_prediction_returns_to_the_clip(model, inflate, rendered, invert, sample, source):
    """Also where the weights were never trained for v: refinement makes the way back exact."""
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    (patched,) = ModelSamplingDiscrete().patch(model, "v_prediction", False)
    inflated, latents = inflate(patched), rendered[1]
    errors = []
    for refine in (0, 5):
        inversion = invert(inflated, latents, source, 10, refine)[0]
        errors.append((sample(inflated, inversion, source, source) - latents).square().mean().sqrt())
    assert errors[1] < 0.2 * errors[0]
    assert errors[1] < 0.1 * latents.std()


def test_v_prediction_tunes_with_its_own_loss(model, inflate, predicting_v, tune, source, random_clip):
    """At equal predictions, the error of v is that of ε times √(1 + σ²)."""
    (_, eps), (_, v) = (tune(inflate(m), random_clip(), steps=1) for m in (model, predicting_v(model)))
    generator = torch.Generator("cpu").manual_seed(0)
    timestep = torch.randint(1000, (1,), generator=generator)
    sigma = model.get_model_object("model_sampling").sigmas[timestep].item()
    assert v.losses[0] == pytest.approx(eps.losses[0] * (1 + sigma**2), rel=1e-3)


def patched_sampling(model, name: str, *arguments):
    from comfy_extras import nodes_model_advanced

    return getattr(nodes_model_advanced, name)().patch(model, *arguments)[0]


@pytest.mark.parametrize(
    "patch",
    [
        ("ModelSamplingSD3", 3.0),
        ("ModelSamplingFlux", 1.15, 0.5, 64, 64),
        ("ModelSamplingContinuousEDM", "edm", 120.0, 0.002),
        ("ModelSamplingContinuousEDM", "eps", 120.0, 0.002),
        ("ModelSamplingDiscrete", "lcm", False),
        ("ModelSamplingDiscrete", "x0", False),
        ("ModelSamplingDiscrete", "img_to_img", False),
    ],
    ids=lambda patch: " ".join(map(str, patch[:2])),
)
def test_other_kinds_of_models_are_refused(patch, model, inflate, invert, tune, source, random_clip):
    odd = patched_sampling(model, *patch)
    message = "Another node makes this model sample as .*, which cannot be tuned or inverted by DDIM: remove that node"
    with pytest.raises(ValueError, match=message):
        inflate(odd)
    with pytest.raises(ValueError, match=message):
        invert(odd, random_clip(), source)
    with pytest.raises(ValueError, match=message):  # patched after inflation
        tune(patched_sampling(inflate(model), *patch), random_clip())


def test_zero_terminal_snr(model, inflate, invert, source, random_clip):
    """The host's option for v-prediction models, whose last σ is huge: the grid stops short of it."""
    inflated = inflate(patched_sampling(model, "ModelSamplingDiscrete", "v_prediction", True))
    inversion, _, sigmas = invert(inflated, random_clip(), source)
    assert torch.isfinite(sigmas).all() and torch.isfinite(inversion.noise).all()


def test_a_transformer_is_refused(inflate, invert, source, random_clip):
    """A real Flux, very small."""
    import comfy.model_patcher
    from comfy.ldm.flux.model import FluxParams
    from comfy.supported_models import FluxSchnell

    newer = {"txt_ids_dims": []} if "txt_ids_dims" in FluxParams.__dataclass_fields__ else {}
    config = FluxSchnell(
        {
            "image_model": "flux",
            "guidance_embed": False,
            "in_channels": 16,
            "out_channels": 16,
            "vec_in_dim": 8,
            "context_in_dim": 16,
            "hidden_size": 64,
            "mlp_ratio": 2.0,
            "num_heads": 2,
            "depth": 1,
            "depth_single_blocks": 1,
            "axes_dim": [4, 14, 14],
            "theta": 10000,
            "patch_size": 2,
            "qkv_bias": True,
            **newer,
        }
    )
    config.set_inference_dtype(torch.float32, None)
    flux = comfy.model_patcher.ModelPatcher(config.get_model({}, ""), torch.device("cpu"), torch.device("cpu"))
    with pytest.raises(ValueError, match="This model is a Flux, not a UNet with spatial transformers: load a Stable"):
        inflate(flux)
    with pytest.raises(ValueError, match="This model is a Flux"):
        invert(flux, random_clip(), source)


def test_frames_have_to_fit(tuned, invert, sample, inflate, model, source, random_clip):
    with pytest.raises(ValueError, match="tuned on 3 frames, but the latent has 4: use the same clip"):
        invert(tuned, random_clip(frames=4), source)
    inversion = invert(inflate(model), random_clip(frames=4), source, 1)[0]
    with pytest.raises(ValueError, match="tuned on 3 frames, but the inversion has 4"):
        sample(tuned, inversion, source, source)


def test_sampling_needs_an_inflated_model(model, tuned, invert, sample, source, random_clip):
    inversion = invert(tuned, random_clip(), source, 1)[0]
    with pytest.raises(ValueError, match='add an "EI2 Inflate UNet" node between'):
        sample(model, inversion, source, source)


def test_impossible_steps_are_refused(tuned, invert, source, random_clip):
    with pytest.raises(ValueError, match="steps is 1000: it must be a whole number from 1 to 999"):
        invert(tuned, random_clip(), source, 1000)


def test_cancelling_the_inversion(tuned, invert, source, random_clip):
    import comfy.model_management as management

    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException):
        invert(tuned, random_clip(), source)
    assert not management.processing_interrupted()
    assert torch.isfinite(invert(tuned, random_clip(), source)[0].noise).all()
