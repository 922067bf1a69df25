"""The bundled miniature in the host: it loads, fits together, and knows its world."""

from __future__ import annotations

import pytest
import torch

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]


@pytest.fixture(scope="module")
def frames(pack):
    """Two pictures, `f h w 3`."""
    clips, scene = pack("miniature.clips"), pack("miniature.scene")
    return scene.render(clips.square_clip()[:12:11]).movedim(1, -1)


def test_the_node_loads_all_three(pack, miniature):
    import comfy.model_base
    import comfy.model_patcher
    import comfy.sd

    model, clip, vae = pack("nodes.load_mini").LoadMini.execute().args
    assert isinstance(model, comfy.model_patcher.ModelPatcher) and isinstance(model.model, comfy.model_base.BaseModel)
    assert isinstance(clip, comfy.sd.CLIP) and isinstance(vae, comfy.sd.VAE)
    assert model.model is not miniature[0].model  # each load is its own
    for name, weight in model.model.state_dict().items():
        assert torch.isfinite(weight).all(), name


def test_it_is_an_ordinary_stable_diffusion_to_the_pack(model, pack):
    unet = pack("host.unet")
    assert unet.prediction(model) == "eps"
    schedule = unet.sigma_schedule(model)
    assert len(schedule) == 1000
    assert schedule[0] == pytest.approx(0.0292, abs=1e-4) and schedule[-1] == pytest.approx(14.615, abs=1e-2)


@pytest.fixture
def on_cpu(pack, monkeypatch):
    """`on_cpu(units, *flags)`: the host as on a CPU with or without units for bf16, started with these flags."""
    import comfy.model_management
    from comfy.cli_args import args

    def on_cpu(units: bool, *flags: str) -> None:
        for device in ("get_torch_device", "vae_device"):
            monkeypatch.setattr(comfy.model_management, device, lambda: torch.device("cpu"))
        monkeypatch.setattr(pack("host.automatic"), "cpu_has_bf16", lambda: units)
        for flag in ("fp32_unet", "fp32_vae", "fp16_vae", "force_fp32"):
            monkeypatch.setattr(args, flag, flag in flags)

    return on_cpu


@pytest.mark.parametrize(
    "units, asked_for, unet, vae",
    [
        (True, [], torch.bfloat16, torch.bfloat16),
        (False, [], torch.float32, torch.float32),
        (True, ["fp32_unet"], torch.float32, torch.bfloat16),
        (True, ["fp32_vae"], torch.bfloat16, torch.float32),
        (True, ["force_fp32"], torch.float32, torch.float32),
        (True, ["fp16_vae"], torch.bfloat16, torch.float16),
    ],
)
def test_it_computes_in_bf16_on_a_cpu_with_units_for_it(pack, on_cpu, units, asked_for, unet, vae):
    on_cpu(units, *asked_for)
    model, _, autoencoder = pack("host.miniature").load_miniature()
    assert pack("host.unet").compute_dtype(model) == unet and autoencoder.vae_dtype == vae
    assert model.model_dtype() == torch.float32, "what is learned adds to weights in fp32"


def test_a_bf16_edit_is_the_fp32_edit(pack, on_cpu, frames, encode):
    def edit(model, vae):
        sampling, clip = pack("host.sampling"), vae.encode(frames)
        inversion = sampling.inverted_clip(
            model, clip, encode("a blue square on a plain white background"), 4, 0, False
        )
        prompt = encode("a red circle on a plain white background")
        return vae.decode(sampling.sample(model, inversion.noise, prompt, encode(""), 3.0, inversion.sigmas)).cpu()

    edits = []
    for units in (False, True):
        on_cpu(units)
        model, _, vae = pack("host.miniature").load_miniature()
        edits.append(edit(model, vae))
    exact, fast = edits
    assert not torch.equal(exact, fast)
    assert pack("ei2.measures").psnr(exact.clamp(0, 1), fast.clamp(0, 1)) > 35


def test_it_is_small(model):
    assert sum(parameter.numel() for parameter in model.model.parameters()) < 10e6


def test_text_tells_prompts_apart(encode):
    red, blue = encode("a red circle on a plain background"), encode("a blue circle on a plain background")
    assert red[0][0].shape == (1, 77, 128)
    assert torch.equal(red[0][0], encode("a red circle on a plain background")[0][0])
    assert (red[0][0] - blue[0][0]).abs().max() > 0.1
    assert torch.isfinite(encode("a zebra playing the saxophone")[0][0]).all()  # words it never saw


def test_the_vae_returns_the_picture(miniature, frames, pack):
    vae = miniature[2]
    latents = vae.encode(frames)
    assert latents.shape == (2, 4, 16, 16)
    decoded = vae.decode(latents).cpu()
    assert decoded.shape == frames.shape
    assert pack("ei2.measures").psnr(decoded.clamp(0, 1), frames) > 25


def test_it_denoises(model, miniature, frames, evaluate, encode, pack):
    """Moderate noise: what the model returns is much nearer to the clean latents than what it was given."""
    latents = miniature[2].encode(frames)
    prompt = encode("a blue square on a dotted white background")
    clean = latents * 0.18215
    for sigma in (0.3, 1.0):
        noise = sigma * torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
        denoised = evaluate(model, (clean + noise) / 0.18215, prompt, sigma=sigma)
        assert (denoised - clean).square().mean() < 0.5 * noise.square().mean(), sigma


def test_the_prompt_matters(model, evaluate, encode, random_clip):
    noise = 10 * random_clip(frames=1, height=16, width=16)
    a, b = (evaluate(model, noise, encode(text), sigma=10.0) for text in ("a red circle", "a green star"))
    assert (a - b).abs().max() > 0.05


def preview(model, miniature, frames):
    """The host's own preview of the first frame and that frame at the same size, both `16 16 3`."""
    from latent_preview import Latent2RGBPreviewer

    format = model.model.latent_format
    latents = miniature[2].encode(frames)
    previewer = Latent2RGBPreviewer(format.latent_rgb_factors, format.latent_rgb_factors_bias)
    image = previewer.decode_latent_to_preview(format.process_in(latents))
    picture = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8).view(16, 16, 3) / 255
    small = torch.nn.functional.avg_pool2d(frames[:1].movedim(-1, 1), 8)[0].movedim(0, -1)
    return picture, small


def test_previews_have_the_latents_colours(pack, model, miniature, frames):
    """A linear map from four channels cannot hold all colours, but looks like the picture."""
    clips, scene = pack("miniature.clips"), pack("miniature.scene")
    views = clips.changed(clips.square_clip()[:1], color="white", background="blue")
    picture, small = preview(model, miniature, scene.render(views).movedim(1, -1))
    assert (picture - small).square().mean() < 0.02

    picture, small = preview(model, miniature, frames)
    correlation = torch.corrcoef(torch.stack([picture.flatten(), small.flatten()]))[0, 1]
    assert correlation > 0.8
