"""A mask at EI2 Edit Sample: outside it the clip comes back, inside the edit is free."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]

SOURCE = "a blue square on a dotted white background"
TARGET = "a red circle on a dotted white background"
STEPS, FRAMES = 8, 3


@pytest.fixture(scope="module")
def rendered(pack, miniature):
    """Frames of a clip, `f h w 3`, where its object or the edit's is, `f h w`, and the latents."""
    clips, scene = pack("miniature.clips"), pack("miniature.scene")
    with torch.inference_mode():
        views = clips.square_clip()[::5]
        truth = clips.changed(views, kind="circle", color="red")
        frames = scene.render(views).movedim(1, -1)
        mask = torch.maximum(scene.object_mask(views), scene.object_mask(truth)).clamp(0, 1)[:, 0]
        return frames, mask, miniature[2].encode(frames)


@pytest.fixture(scope="module")
def inflated(model, inflate):
    with torch.inference_mode():
        return inflate(model)


@pytest.fixture(scope="module")
def inversion(pack, inflated, rendered, source):
    with torch.inference_mode():
        node, latent = pack("nodes.invert").Invert, {"samples": rendered[2]}
        return node.execute(inflated, latent, source, STEPS, 0, trajectory=True).args[0]


@pytest.fixture(scope="module")
def edit(pack, inflated, inversion, encode):
    """`edit(prompt, cfg, mask=…, control=…)` -> latents."""

    def edit(prompt=TARGET, cfg=4.0, inversion=inversion, **options):
        node = pack("nodes.edit_sample").EditSample
        return node.execute(inflated, inversion, encode(prompt), encode(""), cfg, **options).args[0]["samples"]

    return edit


@pytest.fixture(scope="module")
def free(edit):
    """The edit without a mask."""
    with torch.inference_mode():
        return edit()


@pytest.fixture(scope="module")
def masked(edit):
    """The edit of the left half."""
    with torch.inference_mode():
        return edit(mask=left_half())


@pytest.fixture(scope="module")
def control(pack, miniature):
    """EI2 Attention Control's, LocalBlend on the object: `control(cross_replace=0.4, …)`."""

    def control(**options):
        node = pack("nodes.attention_control").AttentionControl
        given = {one.id: getattr(one, "default", None) for one in node.define_schema().inputs}
        given |= dict(clip=miniature[1], source_prompt=SOURCE, target_prompt=TARGET, **options)
        return node.execute(**given).args[0]

    return control


def left_half(frames: int = 1, size: int = 128) -> torch.Tensor:
    mask = torch.zeros(frames, size, size)
    mask[:, :, : size // 2] = 1
    return mask


def test_the_trajectory_leads_from_the_noise_to_the_clip(inversion, inflated, pack, rendered, source):
    scale = inflated.model.process_latent_in
    assert inversion.trajectory.shape == (STEPS + 1, *inversion.noise.shape)
    assert inversion.trajectory.device.type == "cpu" and inversion.trajectory.dtype == torch.float32
    torch.testing.assert_close(inversion.trajectory[0], scale(inversion.noise), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(inversion.trajectory[-1], scale(rendered[2]), atol=1e-5, rtol=0)
    plain = pack("nodes.invert").Invert.execute(inflated, {"samples": rendered[2]}, source, STEPS, 0).args[0]
    assert plain.trajectory is None and torch.equal(plain.noise, inversion.noise)


def test_null_text_keeps_the_same_trajectory(inflated, pack, random_clip, source, encode):
    invert = lambda **options: (
        pack("nodes.invert").Invert.execute(inflated, {"samples": random_clip()}, source, 2, 0, **options).args[0]
    )
    found = invert(null_text=True, null_inner_steps=1, empty=encode(""), trajectory=True).trajectory
    torch.testing.assert_close(found, invert(trajectory=True).trajectory, atol=1e-5, rtol=1e-5)
    assert invert(null_text=True, null_inner_steps=1, empty=encode("")).trajectory is None


def test_latents_outside_are_the_clips_own(masked, rendered):
    found, latents = masked, rendered[2]
    half = latents.shape[-1] // 2
    torch.testing.assert_close(found[..., half:], latents[..., half:], atol=1e-5, rtol=0)
    assert (found[..., :half] - latents[..., :half]).square().mean() > 0.1


def test_a_white_mask_changes_nothing(edit, free):
    torch.testing.assert_close(edit(mask=torch.ones(FRAMES, 128, 128)), free, atol=1e-4, rtol=1e-4)


def test_a_mask_per_frame_and_grey(edit, rendered):
    latents = rendered[2]
    mask = torch.stack([torch.zeros(128, 128), torch.full((128, 128), 0.5), torch.ones(128, 128)])
    change = (edit(mask=mask) - latents).square().mean(dim=(1, 2, 3))
    assert change[0] < 1e-9 and change[0] < change[1] < change[2]


def test_the_background_is_better_than_the_reconstructions(edit, free, rendered, miniature, pack):
    frames, mask, _ = rendered
    outside = (1 - mask).unsqueeze(-1)
    masked_psnr = pack("ei2.measures").masked_psnr
    decoded = lambda latents: miniature[2].decode(latents).cpu().clamp(0, 1)
    score = lambda latents: masked_psnr(decoded(latents), frames, outside)
    reconstruction, masked = edit(SOURCE, 1.0), edit(mask=mask)
    assert score(masked) > score(reconstruction) + 1 > score(free)
    inside = lambda latents: masked_psnr(decoded(latents), frames, 1 - outside)
    assert inside(masked) < inside(reconstruction) - 5  # where it may, the edit did change the clip


def test_mask_and_local_blend_must_both_allow_a_change(edit, control, rendered):
    """LocalBlend keeps the sampled source, the mask the clip itself."""
    blend = control(blend_source="square", blend_target="circle", blend_start=0.0, blend_threshold=0.7)
    both, blended, latents = edit(control=blend, mask=left_half()), edit(control=blend), rendered[2]
    half = latents.shape[-1] // 2
    torch.testing.assert_close(both[..., half:], latents[..., half:], atol=1e-5, rtol=0)
    assert ((blended - latents).abs().amax(dim=1) > 0.5)[..., half:].any()
    sampled = edit(SOURCE, 1.0)  # the source as it runs beside the edit
    kept = lambda found: ((found - sampled).abs().amax(dim=1) < 0.2)[..., :half].float().mean()
    assert kept(edit(control=control(), mask=left_half())) < 0.1
    assert 0.15 < kept(both) < 0.7


@pytest.mark.parametrize(
    "mask, message",
    [
        (left_half(2), "There are 3 frames, but the mask has 2: give one mask, or one per frame"),
        (torch.ones(1, 64, 128), "different shape of picture"),
        (torch.zeros(1, 128, 128), "black everywhere"),
        (255 * left_half(), "from 0 to 255, but they should lie between 0 and 1"),
    ],
)
def test_masks_that_do_not_fit_are_refused(mask, message, edit):
    with pytest.raises(ValueError, match=message):
        edit(mask=mask)


def test_an_inversion_without_trajectory_is_refused(edit, inversion):
    with pytest.raises(ValueError, match="switch trajectory on in EI2 Invert"):
        edit(mask=left_half(), inversion=replace(inversion, trajectory=None))
