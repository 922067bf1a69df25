"""EI2 Carry Key Frame: one frame's edit in all frames, everything else as EI2 Edit Sample made it."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F

from ei2.measures import psnr
from miniature.clips import changed, square_clip
from miniature.scene import View, object_mask, prompt, render

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("inference_mode")]

STEPS, KEY = 6, 2
CLIP = square_clip()[::2]
TRUTH = changed(CLIP, kind="circle", color="red")
TARGET_PROMPT = prompt(TRUTH[0])


def uneven() -> list:
    """The edit's views, whose object has another size in every frame."""
    rng = random.Random(0)
    return [view.with_actor(radius=view.actors[0].radius * rng.uniform(0.8, 1.2)) for view in TRUTH]


def shown(view: View) -> torch.Tensor:
    """A view as an IMAGE, `1 h w 3`."""
    return render([view]).movedim(1, -1)


@pytest.fixture(scope="module")
def latents(miniature):
    """Latents of views."""
    with torch.inference_mode():
        return lambda views: miniature[2].encode(render(views).movedim(1, -1)).float()


@pytest.fixture(scope="module")
def carry(pack, model, miniature, inflate, source, encode, latents):
    """`carry(denoise, …)` -> the node's outputs; the edit is uneven, unless another is given."""
    with torch.inference_mode():
        inflated, edit = inflate(model, "EI2"), latents(uneven())
        inversion = pack("nodes.invert").Invert.execute(inflated, {"samples": latents(CLIP)}, source, STEPS, 0).args[0]
    node = pack("nodes.carry_key_frame").CarryKeyFrame

    def carry(denoise=0.0, edit=edit, positive=TARGET_PROMPT, index=-1, **more):
        given = {"model": inflated, "inversion": inversion, "vae": miniature[2], "cfg": 2.0, "negative": encode("")}
        given |= {"latent": {"samples": edit}, "positive": encode(positive), "denoise": denoise}
        return node.execute(**given | {"key_frame_index": index} | more).args

    carry.edit, carry.inversion = edit, inversion
    return carry


@pytest.fixture(scope="module")
def pictures(miniature):
    """Latents, decoded: `f 3 h w`."""
    return lambda latent: miniature[2].decode(latent["samples"]).movedim(-1, 1).float()


def test_all_frames_get_the_key_frames_form(carry, pictures):
    key = render(TRUTH)[KEY : KEY + 1].movedim(1, -1)
    truth, before = render(TRUTH), psnr(pictures({"samples": carry.edit}), render(TRUTH))
    for denoise in (0.0, 0.5):
        latent, pasted, report = carry(denoise, key_frame=key)
        assert psnr(pictures(latent), truth) > before + 1.0
        assert pasted.shape == (len(CLIP), 128, 128, 3)
        assert report == f"Your frame {KEY} was carried to {len(CLIP)} of {len(CLIP)} frames."


def test_a_key_frame_is_cropped_as_the_clip_was(carry):
    """The host's VAE cuts off what exceeds a multiple of 8 pixels."""
    key = shown(TRUTH[3])
    wider = torch.nn.functional.pad(key, (0, 0, 2, 3, 3, 4))
    expected, found = (carry(0.0, key_frame=picture, index=3) for picture in (key, wider))
    assert torch.equal(found[1], expected[1]) and found[2] == expected[2]


def test_a_frame_of_the_edit_is_found_or_chosen(carry, pictures):
    report = carry()[2]
    assert " of the edit was carried " in report and report.endswith(f"to {len(CLIP)} of {len(CLIP)} frames.")
    found = int(report.split()[1])
    for index in (found, (found + 1) % len(CLIP)):
        _, chosen, report = carry(index=index)
        assert report.startswith(f"Frame {index} of the edit ")
        own = pictures({"samples": carry.edit})[index].movedim(0, -1)
        assert (chosen[index] - own).abs().mean() < 0.01


@pytest.mark.parametrize("number", [1, 4])
def test_the_frame_that_shows_what_the_prompt_says_is_chosen(carry, latents, number):
    """The others show a yellow star."""
    edit = changed(CLIP, kind="star", color="yellow")
    edit[number] = TRUTH[number]
    assert carry(edit=latents(edit))[2].startswith(f"Frame {number} of the edit ")


def test_several_key_frames_are_each_carried_to_their_neighbours(carry, pictures):
    frames = render([*TRUTH[:1], *changed(TRUTH[-1:], color="green")]).movedim(1, -1)
    _, pasted, report = carry(key_frame=frames)
    assert report == f"Your frames 0, 5 were carried to {len(CLIP)} of {len(CLIP)} frames."
    middles = [pasted[i, round(view.actors[0].y), round(view.actors[0].x)] for i, view in enumerate(CLIP)]
    assert [int(pixel.argmax()) for pixel in middles] == [0, 0, 0, 1, 1, 1]  # red, then green


@pytest.mark.parametrize("denoise", [0.0, 0.5, 1.0])
def test_far_from_the_object_the_edit_stays(carry, denoise):
    latent = carry(denoise)[0]["samples"]
    either = torch.maximum(object_mask(CLIP), object_mask(uneven()))
    near = F.max_pool2d(F.adaptive_max_pool2d(either, latent.shape[2:]), 7, 1, 3) > 0
    far = ~near.expand_as(latent)
    assert far.float().mean() > 0.2
    assert torch.allclose(latent[far], carry.edit[far], atol=1e-4)
    assert not torch.allclose(latent, carry.edit, atol=0.1)


def test_sampling_again_is_a_step_of_the_edit_itself(carry, pack, model, inflate, encode):
    """From the first step on, with everything free, it is EI2 Edit Sample."""
    again = pack("host.key_frame").sample_again
    inflated, prompts = inflate(model, "EI2"), (encode(TARGET_PROMPT), encode(""))
    inversion = carry.inversion
    free = torch.ones(len(CLIP), 1, *inversion.noise.shape[2:])
    sampled = again(inflated, inversion, inversion.source, carry.edit, free, *prompts, 2.0, 1.0)
    node = pack("nodes.edit_sample").EditSample
    edited = node.execute(inflated, inversion, *prompts, 2.0).args[0]["samples"]
    assert torch.allclose(sampled, edited, atol=2e-3)


def test_what_surrounds_the_object_may_change_too_with_a_mask(carry, latents):
    elsewhere = latents(changed(uneven(), background="yellow"))
    mask = torch.maximum(object_mask(CLIP), object_mask(uneven()))[:, 0]
    with pytest.raises(ValueError, match="nearly the whole picture.*connect a mask"):
        carry(edit=elsewhere)
    latent, pasted, _ = carry(edit=elsewhere, mask=mask)
    assert not torch.allclose(latent["samples"], elsewhere, atol=0.1)
    around = (F.max_pool2d(mask.unsqueeze(1), 15, 1, 7) == 0)[:, 0]
    near = around & (F.max_pool2d(mask.unsqueeze(1), 27, 1, 13) > 0)[:, 0]
    for place in (around, near):
        assert pasted[place][:, 2].mean() < 0.6 < pasted[place][:, 0].mean()  # still yellow


def test_a_clip_in_context_windows_is_carried(carry, pack, model, inflate, source):
    windowed = pack("nodes.context_windows").ContextWindows.execute(inflate(model, "EI2"), 4, 2).args[0]
    latent = carry(0.5, model=windowed)[0]["samples"]
    assert torch.isfinite(latent).all() and not torch.equal(latent, carry(0.5)[0]["samples"])


def test_an_inversion_with_null_text_is_taken(carry, pack, model, inflate, source, encode, latents):
    node = pack("nodes.invert").Invert
    inversion = node.execute(
        inflate(model, "EI2"), {"samples": latents(CLIP)}, source, STEPS, 0,
        null_text=True, null_inner_steps=1, empty=encode(""),
    ).args[0]  # fmt: skip
    latent = carry(0.5, inversion=inversion)[0]["samples"]
    assert torch.isfinite(latent).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda c: {"edit": c.edit[:3]}, r"latent has the shape \[3, 4, 16, 16\].*EI2 Edit Sample made"),
        (lambda c: {"index": 6}, "There is no frame 6: the clip's frames have the numbers 0 to 5; -1 finds"),
        (lambda c: {"key_frame": torch.rand(2, 128, 128, 3), "index": 1}, "holds 2 pictures.*set it to -1"),
        (lambda c: {"key_frame": torch.rand(1, 96, 128, 3)}, "key_frame is 128 x 96, but the clip 128 x 128"),
        (lambda c: {"mask": torch.ones(128, 128), "edit": 1 - c.edit}, "whole picture.*draw the mask around it alone"),
        (lambda c: {"mask": torch.zeros(128, 128)}, "nothing inside the mask: is it inverted"),
        (lambda c: {"mask": torch.ones(3, 128, 128)}, "There are 6 frames, but the mask has 3"),
        (lambda c: {"edit": c.inversion.source}, "hardly differs from its clip"),
        (lambda c: {"key_frame": shown(CLIP[3])}, "key_frame hardly differs from frame 3 of the clip: connect"),
        (lambda c: {"key_frame": shown(CLIP[3]) * 0.5}, "key_frame differs nearly everywhere from frame"),
        (lambda c: {"key_frame": shown(TRUTH[3]).expand(2, -1, -1, -1)}, r"the same frame \(frames 3, 3\)"),
    ],
    ids=[
        "another clip",
        "index",
        "two pictures",
        "size",
        "white mask",
        "black mask",
        "masks",
        "no edit",
        "unedited",
        "all edited",
        "twice",
    ],
)
def test_bad_inputs_are_said(carry, wrong, message):
    with pytest.raises(ValueError, match=message):
        carry(0.5, **wrong(carry))


def test_what_cannot_be_carried_is_passed_on_if_wished(carry):
    latent, pasted, report = carry(0.5, edit=carry.inversion.source, skip_unsuitable=True)
    assert torch.equal(latent["samples"], carry.inversion.source)
    assert pasted.shape == (len(CLIP), 128, 128, 3)
    assert report.startswith("Not carried, the edit is passed on. The edit hardly differs from its clip")


def test_a_frame_without_the_object_is_said_before_long_work(carry, latents, monkeypatch, pack):
    edit = latents(TRUTH)
    edit[3] = carry.inversion.source[3]
    monkeypatch.setattr(pack("ei2.carried_edit"), "object_motion", None)
    with pytest.raises(ValueError, match="Frame 3 of the edit equals the clip.*set key_frame_index to a frame"):
        carry(edit=edit, index=3)


def test_an_autoencoder_that_fails_is_named(carry, miniature, monkeypatch):
    encode = type(miniature[2]).encode
    monkeypatch.setattr(type(miniature[2]), "encode", lambda *args: encode(*args) * float("nan"))
    with pytest.raises(ValueError, match="vae gave NaN or infinite latents: use another VAE"):
        carry()


def test_cancelling_leaves_nothing(carry, monkeypatch):
    import comfy.model_management as management

    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException):
        carry(0.5)
    management.interrupt_current_processing(False)
    assert carry(0.5)[2].startswith("Frame ")
