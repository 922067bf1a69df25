"""Every family of UNets the host knows: small models of its layout, with random weights, from the host's own classes.

Layouts (levels, ResBlocks, transformers per level, kinds of heads, further inputs) are the real ones; channels are few.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from benchmarks.stable_diffusion import UNETS

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]

TEXT_WIDTH = 48
SMALL = {"model_channels": 32, "context_dim": TEXT_WIDTH, "use_temporal_attention": False}
SD = {"adm_in_channels": None, **UNETS["sd15"], **SMALL}
del SD["num_heads"]  # the host's classes say it
SD2 = {**SD, "num_heads": -1, "num_head_channels": 32, "use_linear_in_transformer": True}
SDXL = {**UNETS["sdxl"], **SMALL, "num_head_channels": 32}
SSD_1B = {
    "transformer_depth": [0, 0, 2, 2, 4, 4],
    "transformer_depth_middle": -1,
    "transformer_depth_output": [0, 0, 0, 1, 1, 2, 10, 4, 4],
}
KOALA = {
    "num_res_blocks": [1] * 3,
    "transformer_depth": [0, 2, 5],
    "transformer_depth_middle": -2,
    "transformer_depth_output": [0, 0, 2, 2, 5, 5],
}
REFINER = {
    "channel_mult": [1, 2, 4, 4],
    "num_res_blocks": [2] * 4,
    "transformer_depth": [0, 0, 4, 4, 4, 4, 0, 0],
    "transformer_depth_middle": 4,
    "transformer_depth_output": [0, 0, 0, 4, 4, 4, 4, 4, 4, 0, 0, 0],
    "adm_in_channels": 2560,
}
V = {"output_blocks.11.1.transformer_blocks.0.norm1.bias": torch.tensor([-1.0, 1.0])}  # how the host tells SD2's v
FAMILIES = {  # the host's class, the layout, what the checkpoint says of itself, what it predicts, transformer blocks
    "SD1.5": ("SD15", SD, {}, "eps", 16),
    "SD2 ε": ("SD20", SD2, {}, "eps", 16),
    "SD2 v": ("SD20", SD2, V, "v", 16),
    "SD2.1 unCLIP": ("SD21UnclipL", {**SD2, "adm_in_channels": 1536, "num_classes": "sequential"}, V, "v", 16),
    "SDXL": ("SDXL", SDXL, {}, "eps", 70),
    "SDXL v, zero terminal SNR": ("SDXL", {**SDXL, **KOALA}, {"v_pred": 1, "ztsnr": 1}, "v", 21),
    "SDXL refiner": ("SDXLRefiner", {**SDXL, **REFINER}, {}, "eps", 44),
    "SSD-1B": ("SSD1B", {**SDXL, **SSD_1B}, {}, "eps", 34),
    "KOALA": ("KOALA_700M", {**SDXL, **KOALA}, {}, "eps", 21),
    "SD1.5 inpainting": ("SD15", {**SD, "in_channels": 9}, {}, "eps", 16),
    "SDXL inpainting": ("SDXL", {**SDXL, **KOALA, "in_channels": 9}, {}, "eps", 21),
    "InstructPix2Pix": ("SD15_instructpix2pix", {**SD, "in_channels": 8}, {}, "eps", 16),
}


@pytest.fixture(scope="module")
def family(random_unet):
    """`family(name)` -> MODEL; built once."""
    built = {}

    def family(name: str):
        if name not in built:
            kind, layout, state, *_ = FAMILIES[name]
            built[name] = random_unet(kind, layout, state)
        return built[name]

    yield family
    built.clear()


def prompt(seed: int, **options) -> list:
    """Random text embeddings with a pooled vector, which models without one leave alone."""
    generator = torch.Generator().manual_seed(seed)
    pooled = torch.randn(1, 1280, generator=generator)
    return [[torch.randn(1, 77, TEXT_WIDTH, generator=generator), {"pooled_output": pooled, **options}]]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_inflated_tuned_inverted_and_edited(name, family, pack, inflate, tune, evaluate, random_clip):
    *_, predicts, expected = FAMILIES[name]
    model, clip, source, target, empty = family(name), random_clip(2, 8, 8), prompt(0), prompt(1), prompt(2)
    unet = pack("host.unet")
    assert unet.prediction(model) == predicts
    assert len(unet.transformer_blocks(unet.require_unet(model))) == expected

    inflated = inflate(model, "EI2")
    assert torch.equal(evaluate(inflated, clip[:1], source), evaluate(model, clip[:1], source))
    tuned, result = tune(inflated, clip, source, steps=2, learning_rate=1e-3)
    assert all(torch.isfinite(torch.tensor(result.losses)))
    assert len(result.query) == 2 * expected and all(delta.any() for delta in result.query.values())
    assert len({key.split(".")[0] for key in result.temporal}) == expected

    invert, sample = (pack(f"nodes.{name}") for name in ("invert", "edit_sample"))
    inversion = invert.Invert.execute(tuned, {"samples": clip}, source, 2, 0).args[0]
    edit = lambda text: sample.EditSample.execute(tuned, inversion, text, empty, 4.0).args[0]["samples"]
    edits = [edit(source), edit(target)]
    assert all(edit.shape == clip.shape and torch.isfinite(edit).all() for edit in edits)
    assert (edits[0] - edits[1]).abs().max() > 1e-3
    other = clip.clone()
    other[0] = random_clip(1, 8, 8, seed=9)[0]
    assert (evaluate(tuned, clip, source)[1] - evaluate(tuned, other, source)[1]).abs().max() > 1e-5  # frames meet


def test_an_inversion_of_another_family_is_refused(model, family, inflate, invert, pack, source, random_clip):
    """Stable Diffusion 1.5 and XL have the same schedule and channels, but their latents differ in scale."""
    inversion = invert(inflate(model), random_clip(2, 8, 8), source, steps=2)[0]
    with pytest.raises(ValueError, match="^The inversion's latents are scaled by 0.18215, but this model's by 0.13025"):
        pack("nodes.edit_sample").EditSample.execute(inflate(family("KOALA")), inversion, prompt(0), prompt(1), 4.0)


@pytest.mark.parametrize("name", ["SD2.1 unCLIP", "KOALA"])
def test_checkpointing_with_further_inputs(name, family, inflate, tune, random_clip):
    inflated, clip = inflate(family(name), "EI2"), random_clip(2, 8, 8)
    (_, off), (_, on) = (tune(inflated, clip, prompt(0), steps=1, checkpointing=choice) for choice in ("off", "on"))
    assert on.losses == pytest.approx(off.losses, abs=1e-4)
    key = next(reversed(off.query))
    torch.testing.assert_close(on.query[key], off.query[key], atol=1e-5, rtol=0)


@pytest.mark.parametrize("inside", [False, True])
def test_weights_that_the_host_has_moved(inside, family, random_unet, inflate, tune, random_clip, pack):
    """As to a GPU and back, in its inference mode or, by the button "Unload Models", outside: torch then refuses views
    of them, and autograd to save them."""
    moved, expected = inflate(random_unet("SD15", SD)), inflate(family("SD1.5"))
    unet, stack = moved.model.diffusion_model, pack("host.inflation").inflation_of(moved).stack
    with torch.inference_mode(inside):
        for tensor in [*unet.parameters(), *unet.buffers(), *stack.parameters()]:
            tensor.data = tensor.detach().clone()  # as `torch.nn.Module.to` does for another device
    assert inside == all(parameter.is_inference() for parameter in unet.parameters())
    identity, parts = pack("host.identity"), {"latent": random_clip(2, 8, 8)}
    assert torch.equal(identity.identify(moved).sample, identity.identify(expected).sample)
    assert identity.inversion_key(moved, parts) == identity.inversion_key(expected, parts)
    losses = [tune(one, random_clip(2, 8, 8), prompt(0))[1].losses for one in (expected, moved)]
    assert losses[0] == losses[1]


def test_a_prompt_with_a_picture_is_tuned_on(family, inflate, tune, random_clip):
    """Of an unCLIP model, which adds noise to the picture by the host's seed."""
    picture = SimpleNamespace(image_embeds=torch.randn(1, 768, generator=torch.Generator().manual_seed(0)))
    entry = {"clip_vision_output": picture, "strength": 1.0, "noise_augmentation": 0.2}
    inflated, clip = inflate(family("SD2.1 unCLIP")), random_clip(2, 8, 8)
    (_, plain), (_, pictured) = (
        tune(inflated, clip, text) for text in (prompt(0), prompt(0, unclip_conditioning=[entry]))
    )
    assert pictured.losses != plain.losses and torch.isfinite(torch.tensor(pictured.losses)).all()


@pytest.mark.parametrize("name", ["KOALA", "SDXL refiner"])
def test_the_pooled_vector_counts(name, family, inflate, evaluate, random_clip):
    inflated, clip, text = inflate(family(name), "EI2"), random_clip(2, 8, 8), prompt(0)
    other = [[text[0][0], {"pooled_output": prompt(1)[0][1]["pooled_output"]}]]
    assert (evaluate(inflated, clip, text) - evaluate(inflated, clip, other)).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["SD1.5 inpainting", "InstructPix2Pix"])
def test_every_frame_has_its_own_picture_beside_the_latents(name, family, inflate, tune, evaluate, pack, random_clip):
    """As InpaintModelConditioning and InstructPixToPixConditioning add to a prompt, in latents: with a mask or not."""
    clip = random_clip(3, 8, 8)
    pictures, mask = random_clip(3, 8, 8, seed=5), torch.zeros(3, 1, 8, 8)
    mask[:, :, 2:6, 2:6] = 1

    def with_pictures(pictures):
        return prompt(0, concat_latent_image=pictures, concat_mask=mask)

    other = pictures.clone()
    other[0] = random_clip(1, 8, 8, seed=6)[0]
    per_frame = inflate(family(name), "Per-frame")
    change = evaluate(per_frame, clip, with_pictures(pictures)) - evaluate(per_frame, clip, with_pictures(other))
    assert change[0].abs().max() > 1e-3 and change[1:].abs().max() <= 1e-5

    if name == "SD1.5 inpainting":
        tuned, result = tune(inflate(family(name), "EI2"), clip, with_pictures(pictures))
        _, plain = tune(inflate(family(name), "EI2"), clip, prompt(0))
        assert result.losses != plain.losses
        invert, sample = pack("nodes.invert").Invert, pack("nodes.edit_sample").EditSample
        inversion = invert.execute(tuned, {"samples": clip}, with_pictures(pictures), 2, 0).args[0]
        target, empty = (prompt(seed, concat_latent_image=pictures, concat_mask=mask) for seed in (1, 2))
        edit = sample.execute(tuned, inversion, target, empty, 4.0).args[0]["samples"]
        assert torch.isfinite(edit).all()


def test_attention_control_gives_each_frame_its_own_picture(family, inflate, pack, random_clip):
    """Source and edit are one batch for the host, which spreads pictures over the batch."""
    from comfy.patcher_extension import WrappersMP
    from comfy.samplers import KSAMPLER

    controlled, clip = pack("host.controlled_sampling"), random_clip(3, 8, 8)
    pictures = torch.arange(1.0, 4.0).view(3, 1, 1, 1).expand(3, 4, 8, 8)
    with_pictures = {"concat_latent_image": pictures, "concat_mask": torch.ones(3, 1, 8, 8)}
    source, target, negative = (prompt(seed, **with_pictures) for seed in range(3))
    model, seen = inflate(family("SD1.5 inpainting"), "EI2"), []

    def watch(executor, x, *args, **kwargs):
        seen.append(x[:3, 5].mean(dim=(1, 2)))
        return executor(x, *args, **kwargs)

    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "watch", watch)
    inversion = pack("nodes.invert").Invert.execute(model, {"samples": clip}, source, 2, 0).args[0]
    sides = (controlled.Guidance(one, negative, cfg) for one, cfg in ((source, 1.0), (target, 4.0)))
    guider = controlled.ControlledGuider(model, *sides, inversion.sigmas, 0.0, frames=3)
    before = len(seen)
    sampler = KSAMPLER(pack("ei2.ddim").sample_ddim)
    pack("host.sampling").run(model, torch.cat([inversion.noise] * 2), guider, sampler, inversion.sigmas)
    assert len(seen) > before and all(torch.equal(shown, seen[0]) for shown in seen)
    assert len(set(seen[0].tolist())) == 3


SVD = {
    **SD2,
    "in_channels": 8,
    "adm_in_channels": 768,
    "num_classes": "sequential",
    "use_temporal_attention": True,
    "use_temporal_resblock": True,
    "extra_ff_mix_layer": True,
    "use_spatial_context": True,
    "merge_strategy": "learned_with_images",
    "merge_factor": 0.0,
    "video_kernel_size": [3, 1, 1],
}
ZERO123 = {"cc_projection.weight": torch.zeros(768, 772), "cc_projection.bias": torch.zeros(768)}


@pytest.mark.parametrize(
    "name, kind, layout, state, message",
    [
        ("Stable Video Diffusion", "SVD_img2vid", SVD, {}, "reads 4 channels in addition to the latents"),
        (
            "Stable Zero123",
            "Stable_Zero123",
            {**SD, "in_channels": 8},
            ZERO123,
            "reads 4 channels in addition to the latents",
        ),
        ("x4 upscaler", "SD_X4Upscaler", {**SD2, "in_channels": 7}, {}, "reads 3 channels in addition to the latents"),
        ("SDXL EDM", "SDXL", {**SDXL, **KOALA}, {"edm_vpred.sigma_max": torch.tensor(120.0)}, "flow or EDM model"),
        ("Lotus", "LotusD", {**SD2, "adm_in_channels": 4}, {}, "predicts neither noise"),
    ],
)
def test_a_family_is_refused_in_words(name, kind, layout, state, message, random_unet, inflate):
    with pytest.raises(ValueError, match=message):
        inflate(random_unet(kind, layout, state), "EI2")
