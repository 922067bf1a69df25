"""The node that checks before editing whether an inversion reproduces its clip."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..ei2.measures import PSNR_LIMIT, psnr
from ..ei2.ssim import ssim
from ..host.inputs import check_same_clip, check_video
from ..host.newer import searchable
from ..host.ui import drawn, progress, shown
from .pictures.attention_maps import HEAT
from .pictures.score_plots import Panel, plot_reconstruction

FULL_HEAT = 0.25  # of the full range: the mean difference of a pixel's channels that is drawn white
# Our choice, in dB: thresholds of a good, fair and poor reconstruction; below, it is hardly the same clip.
GOOD, FAIR, POOR = 30.0, 25.0, 15.0
CLOSE, APART = 1.0, 4.0  # dB below the PSNR of the VAE alone
LITTLE = 20.0  # dB, of the VAE alone: it is hardly the model's
DIFFERENT = 0.5  # SSIM

HARDLY = (
    "This is hardly the clip: check that the reconstruction uses the inversion's own model and source prompt, at cfg 1 "
    "(with null_text: at null_cfg)."
)
BETTER = "set refine of EI2 Invert to 1 or 2, then raise its steps; if that does not help, tune less"
SAME_CLIP = "use the clip that was inverted, and its reconstruction at the same size."


class ReconstructionCheck(io.ComfyNode):
    """Scores of a reconstruction."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EI2_ReconstructionCheck",
            display_name="EI2 Reconstruction Check",
            category="EI2",
            description="Compares the reconstruction (EI2 Edit Sample with the source prompt at cfg 1, decoded) with "
            "the clip. No edit can keep what the inversion loses, so check this before editing.",
            **searchable("inversion quality, psnr, ssim"),
            inputs=[
                io.Image.Input("source", tooltip="The clip's frames, as they were encoded for the inversion."),
                io.Image.Input(
                    "reconstruction",
                    tooltip="The inversion sampled with the source prompt at cfg 1, through VAE Decode.",
                ),
                io.Image.Input(
                    "vae_only",
                    optional=True,
                    tooltip="The clip through VAE Encode and VAE Decode with nothing in between: the best possible "
                    "result. The advice then covers only what the inversion loses, not the VAE.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="advice", tooltip="How good it is, and what to do."),
                io.Float.Output(display_name="psnr", tooltip="In dB over all frames, at most 100; higher is better."),
                io.Float.Output(display_name="ssim", tooltip="The mean structural similarity; 1 means equal."),
                io.Image.Output(
                    display_name="difference",
                    tooltip="The difference per frame: dark where equal, white from a quarter of the full range.",
                ),
                io.Image.Output(display_name="plot", tooltip="The worst frame, and PSNR and SSIM for every frame."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, source, reconstruction, vae_only=None) -> io.NodeOutput:
        source, again = check_video(source, "source"), check_video(reconstruction, "reconstruction")
        check_same_clip(source, again, ("source", "reconstruction"), SAME_CLIP)
        best = None
        if vae_only is not None:
            best = check_video(vae_only, "vae_only")
            check_same_clip(source, best, ("source", "vae_only"), SAME_CLIP)
        advance = progress(len(source))
        scores = []
        for a, b in zip(source.movedim(-1, 1).split(1), again.movedim(-1, 1).split(1)):
            scores.append((min(psnr(a, b), PSNR_LIMIT), ssim(a, b)))
            advance()
        psnrs, ssims = zip(*scores)
        whole, structure = min(psnr(source, again), PSNR_LIMIT), sum(ssims) / len(ssims)
        reachable = None if best is None else min(psnr(source, best), PSNR_LIMIT)
        worst = min(range(len(psnrs)), key=psnrs.__getitem__)
        text = f"{whole:.1f} dB, SSIM {structure:.3f}, frame {worst} worst ({psnrs[worst]:.1f} dB). "
        flat = psnr(source, source.mean(dim=(1, 2), keepdim=True).expand_as(source))
        # a dark clip is near any dark picture
        text += HARDLY if whole < flat and structure < DIFFERENT else advice(whole, reachable)
        difference = difference_picture(source, again)
        panels = [
            Panel(f"PSNR, dB: {whole:.1f} over all frames", {"PSNR": psnrs}, span=4),
            Panel(f"SSIM: mean {structure:.3f}", {"SSIM": ssims}, span=0.1, most=1.01),
        ]
        plot = drawn(lambda: plot_reconstruction(source, again, difference, worst, panels, text))
        return io.NodeOutput(text, whole, structure, difference, plot, ui=shown(cls, plot, text))


def advice(score: float, reachable: float | None = None) -> str:
    """One sentence for a reconstruction's PSNR. `reachable`: the PSNR of the VAE alone, if known; both in dB."""
    if reachable is not None:
        return _advice_beside_vae(score, reachable)
    or_vae = "or connect vae_only to see how much of it is the VAE's loss"
    if score < POOR:
        return HARDLY
    if score >= GOOD:
        return "The inversion reproduces the clip: continue with the edit."
    if score >= FAIR:
        return f"Good enough for most edits, but fine detail will differ: for more {BETTER}, {or_vae}."
    return f"The edit would lose the clip's detail: {BETTER}, {or_vae}."


def _advice_beside_vae(score: float, reachable: float) -> str:
    """The same if the PSNR of the VAE alone is known."""
    loss = reachable - score
    lost = f"The inversion loses {max(0.0, loss):.1f} dB of the {reachable:.1f} dB that the VAE allows"
    if reachable < LITTLE and loss <= APART:
        return f"{lost}, which is little: check that the VAE is the model's own."
    if score >= GOOD:
        return f"{lost}. This is good: continue with the edit."
    if score < POOR:
        return HARDLY
    if loss <= CLOSE:
        return f"{lost}. This is as good as it gets: continue with the edit."
    if loss <= APART:
        return f"{lost}: good enough for most edits; for more detail {BETTER}."
    return f"{lost}: {BETTER}."


def difference_picture(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The mean absolute difference of two clips `f h w 3` over the channels, as a heat map."""
    amount = ((a - b).abs().mean(dim=-1) / FULL_HEAT).clamp(max=1)
    return torch.from_numpy(HEAT(amount.numpy())[..., :3]).float()
