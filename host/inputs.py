"""Checks of a node's inputs before long work: clips, prompts, inversions, pictures."""

from __future__ import annotations

import torch

from ..ei2.ddim import ddim_sigmas
from .inflation import inflation_of
from .unet import latent_scale, require_unet, sigma_schedule
from .windows import NODE, context_windows

MANY = 10**9  # frames: more than any window has
BRIGHTEST = 8  # of an IMAGE: pictures of a high dynamic range exceed 1, which is clamped
PARTS = ("area", "mask")  # options that restrict a prompt to a part of the picture
RANGES = (("start_percent", "end_percent"), ("clip_start_percent", "clip_end_percent"))  # … of the sampling


def clip_latents(model, latent: dict) -> torch.Tensor:
    """The clip in a LATENT, `f c h w` in float32, whatever precision the host uses for intermediate results: half
    precision overflows at high noise levels. Raises `ValueError` if it is not one video for this model."""
    unet = require_unet(model)
    samples = latent["samples"]
    if getattr(samples, "is_nested", False) or samples.ndim != 4:
        raise ValueError(
            "This latent is not a batch of frames: encode the images of one video with VAE Encode "
            "(latents of video models such as Wan do not fit)."
        )
    channels = unet.out_channels
    if samples.shape[1] != channels:
        raise ValueError(
            f"This latent has {samples.shape[1]} channels, but the model needs {channels}: encode with the VAE that "
            "belongs to the model."
        )
    if "noise_mask" in latent:
        raise ValueError("This latent carries a mask, which tuning and inversion would ignore: use one without.")
    if "batch_index" in latent and len(set(latent["batch_index"])) != samples.shape[0]:
        raise ValueError("This latent holds repeated frames of a batch, not one video: encode the video's frames once.")
    if not torch.isfinite(samples).all():
        raise ValueError("The clip's latents hold NaN or infinite values: encode with another VAE or in fp32.")
    return samples.float()


def check_conditioning(conditioning: list, frames: int, name: str) -> None:
    """Raises `ValueError` unless there is one prompt for all frames or one per frame, and if at some noise levels no
    prompt covers the whole picture: the model would not be called there."""
    if not conditioning:
        raise ValueError(f"{name} holds no prompt: connect a CLIP Text Encode.")
    for tokens, _ in conditioning:
        if tokens.shape[0] not in (1, frames):
            raise ValueError(
                f"{name} holds {tokens.shape[0]} prompts, but the video has {frames} frames: give one prompt, or one "
                "per frame."
            )
    held = set().union(*(restrictions(options) for _, options in conditioning))
    reached = 0.0
    for start, end in sorted(_active(options) for _, options in conditioning if not options.keys() & set(PARTS)):
        if start <= reached:
            reached = max(reached, end)
    if reached < 1:
        raise ValueError(
            f"{name} must cover the whole picture at every step, but has {', '.join(sorted(held))} set: give a prompt "
            "without that."
        )


def check_trainable(conditioning: list, name: str) -> None:
    """Raises `ValueError` for prompts that the UNet cannot be tuned on: with GLIGEN's boxes, or with different hooks on
    its weights, of which the backward pass would see the last ones only."""
    check_boxes(conditioning, name)
    first, *others = (options.get("hooks") for _, options in conditioning)
    if any(hooks is not first for hooks in others):
        raise ValueError(
            f"{name} holds prompts with different LoRA hooks, which cannot be trained together: give all of them the "
            "same hooks, or none."
        )


def check_boxes(conditioning: list, name: str) -> None:
    """Raises `ValueError` for GLIGEN's boxes, whose layers the host has made without gradients."""
    if any("gligen" in options for _, options in conditioning):
        raise ValueError(
            f"{name} has GLIGEN's boxes, through which nothing can be learned: use the prompt without them here, and "
            "with them in the edit."
        )


def check_one_prompt(conditioning: list, name: str, what: str) -> None:
    """Raises `ValueError` unless it is one prompt for the whole picture, all frames and
    all of the sampling, as `what` requires."""
    if len(conditioning) != 1 or conditioning[0][0].shape[0] != 1:
        raise ValueError(f"{name} must be one plain prompt for {what}, not several or one per frame.")
    odd = sorted(restrictions(conditioning[0][1]))
    if odd:
        raise ValueError(f"{name} must be one plain prompt for {what}, but has {', '.join(odd)} set.")


def restrictions(options: dict) -> set[str]:
    """The prompt's options that restrict it to a part of the picture or of the sampling."""
    return {key for key in PARTS if key in options} | {
        key for pair in RANGES for key, whole in zip(pair, (0.0, 1.0)) if options.get(key, whole) != whole
    }


def _active(options: dict) -> tuple[float, float]:
    """The start and end of a prompt's range, as shares of the sampling."""
    return (max(options.get(start, 0.0) for start, _ in RANGES), min(options.get(end, 1.0) for _, end in RANGES))


def check_sampling(model, inversion, positive: list, negative: list) -> None:
    """Raises `ValueError` unless the prompts and the MODEL fit the inversion that is to be sampled."""
    check_conditioning(positive, inversion.frames, "positive")
    check_conditioning(negative, inversion.frames, "negative")
    check_frames(model, inversion.frames, "the inversion")
    check_schedule(model, inversion)


def check_schedule(model, inversion) -> None:
    """Raises `ValueError` for an inversion whose latents or noise levels are not the model's:
    its noise would have the wrong amount."""
    scale = latent_scale(model)
    if inversion.latent_scale not in (None, scale):
        raise ValueError(
            f"The inversion's latents are scaled by {inversion.latent_scale:g}, but this model's by {scale:g}: it was "
            "made with another family of models. Encode and invert with the checkpoint that samples."
        )
    sigmas = inversion.sigmas.cpu().float()
    schedule = ddim_sigmas(len(sigmas) - 1, sigma_schedule(model))
    if not torch.allclose(sigmas, schedule, rtol=1e-3, atol=1e-4):
        raise ValueError(
            f"The inversion goes up to noise level {sigmas.max():.4g}, but this model's schedule at {len(sigmas) - 1} "
            f"steps to {schedule.max():.4g}: invert with the same model that samples, with the same "
            "sampling nodes applied."
        )


def check_frames(model, frames: int, what: str) -> None:
    """Raises `ValueError` if the UNet would see a different number of frames at once than during tuning, and for
    context windows that cannot split a video."""
    windows = context_windows(model.model_options, frames)
    at_once = windows.length if windows else frames
    inflation = inflation_of(model)
    tune = inflation.tune if inflation else None
    if not tune or tune.frames == at_once:
        return
    if windows:
        raise ValueError(
            f"The model was tuned on {tune.frames} frames at once, but its context windows have {at_once}: set "
            f"context_length of {windows.node} to {tune.frames}, or tune again with window_frames {at_once}."
        )
    longer_ones = context_windows(model.model_options, MANY)
    if longer_ones and frames > tune.frames:
        raise ValueError(
            f"The model was tuned on {tune.frames} frames at once, but its context windows have {longer_ones.length}, "
            f"more than the {frames} of {what}: set context_length of {longer_ones.node} to {tune.frames}."
        )
    longer = ""
    if frames > tune.frames:
        longer = (
            f", or edit the long clip in windows: set window_frames of EI2 One-Shot Tune, and add an "
            f"{NODE} node with context_length {tune.frames} after it"
        )
    raise ValueError(
        f"The model was tuned on {tune.frames} frames, but {what} has {frames}: use the same clip for tuning, "
        f"inversion and edit{longer}."
    )


def check_whole(model, frames: int, what: str) -> None:
    """Raises `ValueError` if context windows would split the clip, because `what` needs it whole."""
    windows = context_windows(model.model_options, frames)
    if windows:
        raise ValueError(
            f"{what} needs the whole clip at once, but the context windows cut its {frames} frames into windows of "
            f"{windows.length}: take {windows.node} off here, or use a shorter clip."
        )


def check_video(images: torch.Tensor, name: str) -> torch.Tensor:
    """An IMAGE's frames, `f h w 3` in float32 on the CPU, without transparency. Raises `ValueError` if it is empty, not
    a batch of pictures, not finite, or not in 0..1."""
    if images.ndim != 4 or not images.numel():
        fault = "is no batch of pictures" if images.numel() else "holds no frames"
        raise ValueError(f"{name} {fault}, its shape is {list(images.shape)}: connect a video's frames.")
    frames = images[..., : 1 if images.shape[-1] < 3 else 3].float().cpu()  # the last of two or four is transparency
    if not torch.isfinite(frames).all():
        raise ValueError(f"{name} holds NaN or infinite values: decode it with another VAE or in fp32.")
    if frames.max() > BRIGHTEST:
        raise ValueError(
            f"{name} holds values up to {frames.max():g}, but colours should lie between 0 and 1: divide it by 255, or "
            "load it with another node."
        )
    return frames.expand(*frames.shape[:3], 3).clamp(0, 1)


def check_same_clip(first: torch.Tensor, second: torch.Tensor, names: tuple[str, str], hint: str) -> None:
    """Raises `ValueError` if two clips `f h w 3` differ in size or number of frames."""
    for what, a, b in (("frames", len(first), len(second)), ("size", _size(first), _size(second))):
        if a != b:
            raise ValueError(f"{names[0]} and {names[1]} differ in {what}, {a} and {b}: {hint}")


def _size(clip: torch.Tensor) -> str:
    return f"{clip.shape[2]} x {clip.shape[1]}"
