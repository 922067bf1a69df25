"""Inversion and sampling through the host against the DDIM schedulers of `diffusers` around the bare UNet.

The loops of this file are those of a `diffusers` pipeline: the miniature's UNet is called directly, with z and t, and
the scheduler makes the next z of its output. Nothing of the host's σ-space, guider or samplers takes part, nor anything
of ours. What the settings mean and how the schedulers correspond to ours: see `tests/unit/test_ddim_diffusers.py`.
For v, the miniature's output is taken for v: meaningless pictures, but the same numbers in both.
"""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler

from ..unit.diffusers_scheduler import scheduler

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]

KINDS = ("epsilon", "v_prediction")
PLAIN = 1e-5  # relative to the latents' spread; 1e-6 to 3e-6 were measured
ROUNDING = 1e-6  # of the UNet's output, relative to its spread


def predicting(model, prediction: str):
    """The MODEL, read by the host as one that predicts ε or v."""
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    return model if prediction == "epsilon" else ModelSamplingDiscrete().patch(model, prediction, False)[0]


def unet_of(model, positive, negative=None, cfg: float = 1.0):
    """The bare UNet with classifier-free guidance: (z `f 4 h w`, t) -> its output."""
    from comfy.model_management import load_models_gpu

    load_models_gpu([model])
    unet = model.model.diffusion_model

    def call(z, t: int, conditioning):
        context = conditioning[0][0].to(z).expand(len(z), -1, -1)
        return unet(z, torch.full((len(z),), float(t)).to(z), context=context)

    def output(z, t: int):
        with_prompt = call(z, t, positive)
        if negative is None:
            return with_prompt
        without = call(z, t, negative)
        return without + cfg * (with_prompt - without)

    return output


def clean_and_noise(alpha, prediction: str, z, output):
    """x₀ and ε in the output, by the definitions of ε and v."""
    a, b = alpha.sqrt(), (1 - alpha).sqrt()
    return ((z - b * output) / a, output) if prediction == "epsilon" else (a * z - b * output, a * output + b * z)


@pytest.fixture
def start(random_clip, model):
    """A clip in the host's scale and, on the model's device, in the model's."""
    latents = random_clip(frames=2)
    return latents, model.model.process_latent_in(latents).to(model.load_device)


def difference(ours, theirs) -> float:
    """The largest one, relative to the latents' own spread."""
    return float((ours.cpu() - theirs.cpu()).abs().max() / theirs.std())


def moved_by_rounding(sample, z: torch.Tensor, output) -> float:
    """How far the loop of `diffusers`, `sample(output, z)`, itself moves if the UNet's output is a little different:
    sampling, and guidance above all, multiplies rounding, the more so the more the model has learned."""
    generator = torch.Generator().manual_seed(0)

    def rounded(*inputs):
        found = output(*inputs)
        return found + ROUNDING * found.std() * torch.randn(found.shape, generator=generator).to(found)

    return difference(sample(rounded, z), sample(output, z))


@pytest.mark.parametrize("zsnr", [False, True])
def test_the_hosts_schedule_is_that_of_diffusers(zsnr, model, pack):
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    (patched,) = ModelSamplingDiscrete().patch(model, "v_prediction", zsnr)
    settings = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", rescale_betas_zero_snr=zsnr)
    theirs = DDIMScheduler(**settings)
    alphas = theirs.alphas_cumprod.double()
    sigmas = pack("host.unet").sigma_schedule(patched).double()
    torch.testing.assert_close(1 / (1 + sigmas**2), alphas, rtol=0, atol=1e-5)


@pytest.mark.parametrize("steps", [10, 30, 50])
@pytest.mark.parametrize("prediction", KINDS)
def test_the_hosts_ddim_is_that_of_diffusers(prediction, steps, model, pack):
    """The host's sampler function on our σ, in float64, with a network that is far from linear."""
    from comfy.samplers import sampler_object

    down = scheduler(DDIMScheduler, steps, prediction)
    alphas = down.alphas_cumprod = down.alphas_cumprod.double()
    schedule = ((1 - alphas) / alphas).sqrt()

    def network(z, t):
        return torch.tanh(1.7 * z + 0.3) * (0.5 + t / 1000) - 0.2 * z.roll(1, -1)

    def denoise(x, sigma, **_):
        t = int((schedule - sigma[0]).abs().argmin())
        z = x * alphas[t].sqrt()
        return clean_and_noise(alphas[t], prediction, z, network(z, t))[0]

    z = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sigmas = pack("ei2.ddim").ddim_sigmas(steps, schedule)
    ddim = sampler_object("ddim").sampler_function
    ours = ddim(denoise, z / alphas[down.timesteps[0]].sqrt(), sigmas, disable=True)
    for t in down.timesteps.tolist():
        z = down.step(network(z, t), t, z).prev_sample
    torch.testing.assert_close(ours, z, rtol=0, atol=1e-10)


@pytest.mark.parametrize("steps, cfg", [(20, 1.0), (15, 7.5)])
@pytest.mark.parametrize("prediction", KINDS)
def test_sampling_is_that_of_diffusers(prediction, steps, cfg, model, pack, source, encode, start):
    patched, negative = predicting(model, prediction), encode("")
    down = scheduler(DDIMScheduler, steps, prediction)
    sigmas = pack("ei2.ddim").ddim_sigmas(steps, pack("host.unet").sigma_schedule(patched))
    noise = start[0] / down.alphas_cumprod[down.timesteps[0]].sqrt()
    ours = pack("host.sampling").sample(patched, noise, source, negative, cfg, sigmas)

    def theirs(output, z):
        for t in down.timesteps.tolist():
            z = down.step(output(z, t), t, z).prev_sample
        return z

    output = unet_of(patched, source, None if cfg == 1 else negative, cfg)
    bound = PLAIN + 10 * moved_by_rounding(theirs, start[1], output)
    assert difference(model.model.process_latent_in(ours), theirs(output, start[1])) < bound < 2e-3


@pytest.mark.parametrize("steps", [10, 15])
@pytest.mark.parametrize("prediction", KINDS)
def test_inversion_is_that_of_diffusers(prediction, steps, model, pack, source, start):
    """ε is evaluated at the destination, and v read as ε there."""
    patched = predicting(model, prediction)
    up = scheduler(DDIMInverseScheduler, steps, "epsilon")
    ours = pack("host.sampling").invert(patched, start[0], source, steps, 0)[0]

    output, z = unet_of(patched, source), start[1]
    for t in up.timesteps.tolist():
        z = up.step(clean_and_noise(up.alphas_cumprod[t], prediction, z, output(z, t))[1], t, z).prev_sample
    expected = z / up.alphas_cumprod[t].sqrt()
    assert difference(model.model.process_latent_in(ours), expected) < PLAIN


def test_an_inflated_model_inverts_and_samples_as_with_diffusers(model, inflate, evaluate, pack, source, encode, start):
    """Here ε comes from the host's guider, since the attention between frames needs it."""
    inflated, negative, cfg, steps = inflate(model, "EI2"), encode(""), 7.5, 10
    down, up = (scheduler(kind, steps, "epsilon") for kind in (DDIMScheduler, DDIMInverseScheduler))
    noise, sigmas = pack("host.sampling").invert(inflated, start[0], source, steps, 0)
    edit = pack("host.sampling").sample(inflated, noise, source, negative, cfg, sigmas)

    def output(z, t, *arguments):
        alpha = down.alphas_cumprod[t]
        latents = model.model.process_latent_out(z / alpha.sqrt())
        clean = evaluate(inflated, latents, source, *arguments, sigma=float(((1 - alpha) / alpha).sqrt()))
        return (z - alpha.sqrt() * clean) / (1 - alpha).sqrt()

    z = start[1]
    for t in up.timesteps.tolist():
        z = up.step(output(z, t), t, z).prev_sample
    expected = z / up.alphas_cumprod[t].sqrt()
    assert difference(model.model.process_latent_in(noise), expected) < PLAIN

    def theirs(output, z):
        for t in down.timesteps.tolist():
            z = down.step(output(z, t, negative, cfg), t, z).prev_sample
        return z

    bound = PLAIN + 10 * moved_by_rounding(theirs, z, output)
    assert difference(model.model.process_latent_in(edit), theirs(output, z)) < bound < 2e-3
