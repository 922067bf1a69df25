"""EI2 Reconstruction Check on the host: scores, advice, pictures."""

from __future__ import annotations

import pytest
import torch

pytestmark = pytest.mark.host


@pytest.fixture
def check(pack, tmp_path):
    """Runs the node; its preview goes to a folder of this test."""
    import folder_paths

    before = folder_paths.get_temp_directory()
    folder_paths.set_temp_directory(str(tmp_path))
    yield pack("nodes.reconstruction_check").ReconstructionCheck.execute
    folder_paths.set_temp_directory(before)


@pytest.fixture
def clip() -> torch.Tensor:
    return 0.2 + 0.6 * torch.rand(4, 24, 32, 3, generator=torch.Generator().manual_seed(0))


def test_scores_and_pictures(check, clip):
    again = clip + 0.01
    again[2] += 0.09
    text, psnr, ssim, difference, plot = check(clip, again).args
    error = (3 * 0.01**2 + 0.1**2) / 4
    assert psnr == pytest.approx(-10 * torch.tensor(error).log10().item(), abs=0.01)
    assert 0.8 < ssim < 1
    assert "frame 2 worst (20.0 dB)" in text
    assert difference.shape == clip.shape
    assert difference[2].mean() > difference[0].mean() > 0
    assert plot.shape[0] == 1 and plot.shape[2] > 400 and plot.std() > 0.05


def test_an_exact_reconstruction(check, clip):
    found = check(clip, clip)
    assert found.args[1] == 100 and found.args[2] == pytest.approx(1)
    assert "continue with the edit" in found.args[0]
    assert found.ui["text"][0] == found.args[0] and len(found.ui["images"]) == 1


@pytest.mark.parametrize(
    "reachable, start",
    [(None, "The inversion reproduces"), (30.5, "The inversion loses 0.5 dB"), (29.0, "The inversion loses 0.0 dB")],
)
def test_good(pack, reachable, start):
    text = pack("nodes.reconstruction_check").advice(30.0, reachable)
    assert text.startswith(start) and "continue with the edit" in text


def test_the_advice_follows_the_thresholds(pack):
    advice = pack("nodes.reconstruction_check").advice
    assert advice(29.9).startswith("Good enough for most edits") and "refine" in advice(29.9)
    assert advice(24.9).startswith("The edit would lose") and "refine" in advice(24.9)
    assert "hardly the clip" in advice(14.9) and advice(14.9, 26) == advice(14.9)
    assert "check that the VAE is the model's own" in advice(14.9, 15.0) and "VAE" in advice(16, 16.2)
    assert advice(38, 45).endswith("This is good: continue with the edit.")  # as without vae_only
    assert "good enough for most edits" in advice(25, 28) and "good enough" not in advice(25, 30)


def test_a_black_picture_is_no_reconstruction_of_a_dark_clip(check):
    dark = 0.04 * torch.rand(3, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    found = check(dark, torch.zeros_like(dark))
    assert found.args[1] > 30 and "hardly the clip" in found.args[0]
    assert "continue with the edit" in check(dark, dark + 1e-3).args[0]


def test_what_the_vae_loses_is_not_held_against_the_inversion(check, clip):
    blurred = clip + 0.05
    assert "The inversion loses 0.0 dB of the 26.0 dB" in check(clip, blurred, vae_only=blurred).args[0]


def test_bad_input_is_named(check, clip):
    for other, message in (
        (clip[:3], "source and reconstruction differ in frames, 4 and 3"),
        (clip[:, :16], "differ in size, 32 x 24 and 32 x 16"),
        (clip * float("nan"), "reconstruction holds NaN"),
        (clip[:, :8], "differ in size"),
    ):
        with pytest.raises(ValueError, match=message):
            check(clip, other)
    with pytest.raises(ValueError, match="vae_only differ in frames"):
        check(clip, clip, vae_only=clip[:1])
    with pytest.raises(ValueError, match="11 x 11 pixels"):
        check(clip[:, :8], clip[:, :8])
