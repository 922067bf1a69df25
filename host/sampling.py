"""Inversion and sampling through the host's guider, with its previews, progress and cancelling."""

from __future__ import annotations

from collections.abc import Callable

import comfy.model_management
import comfy.samplers
import latent_preview
import torch

from ..ei2.ddim import ddim_sigmas, sample_ddim, sample_ddim_inversion
from ..ei2.inverted_clip import Inversion
from .memory import sampling_within_memory
from .ui import extra, progress
from .unet import check_finite, require_unet, sigma_schedule

# the host's names for what other nodes attach to the guidance
GUIDANCE = {
    "sampler_cfg_function",
    "sampler_pre_cfg_function",
    "sampler_post_cfg_function",
    "sampler_calc_cond_batch_function",
    "disable_cfg1_optimization",
}


def invert(
    model,
    latents: torch.Tensor,
    positive: list,
    steps: int,
    refine: int,
    on_latents: Callable[[torch.Tensor], object] = lambda x: None,
    later_steps: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns noise latents `f c h w` (the host's latent scale) from which deterministic sampling returns `latents`,
    and the descending sigmas for sampling, `steps + 1`. Raises `ValueError` for models that cannot be inverted.

    `on_latents` is called with the latents at each σ, in σ-space, from clean to noise. `later_steps`:
    steps of later work on the same progress bar.
    """
    require_unet(model)
    sigmas = ddim_sigmas(steps, sigma_schedule(model))
    inverter = Inverter(refine, on_latents, later_steps)
    guider = plain_guider(without_guidance(model), positive, None, 1.0)
    with sampling_within_memory("inversion", model, latents, positive):
        return run(model, latents, guider, inverter, sigmas.flip(0)), sigmas


def inverted_clip(model, source: torch.Tensor, positive: list, steps: int, refine: int, keep: bool) -> Inversion:
    """The inversion of the clip `f c h w`. `keep`: whether to keep the trajectory."""
    trajectory = []
    on_latents = lambda latents: keep and trajectory.append(latents.float().cpu())
    noise, sigmas = invert(model, source, positive, steps, refine, on_latents)
    return Inversion(noise, source, sigmas, trajectory=torch.stack(trajectory[::-1]) if keep else None)


def without_guidance(model):
    """A clone of the MODEL without other nodes' changes to the guidance (PAG, SAG, RescaleCFG, …), for work that needs
    the prediction for one prompt: tuning and inversion."""
    clone = model.clone()
    clone.model_options = unguided(clone.model_options)
    return clone


def unguided(model_options: dict) -> dict:
    """The options of a MODEL, without those by which other nodes change how predictions are combined."""
    return {name: value for name, value in model_options.items() if name not in GUIDANCE}


class Inverter(comfy.samplers.KSAMPLER):
    """DDIM inversion as one of the host's samplers; reports latents to `on_latents`."""

    def __init__(self, refine: int, on_latents: Callable[[torch.Tensor], object], later_steps: int):
        super().__init__(sample_ddim_inversion, extra_options={"refine": refine})
        self.on_latents, self.later_steps = on_latents, later_steps

    def sample(self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, *args, **kwargs):
        def observe(step, x0, x, total):
            self.on_latents(x)
            callback(step, x0, x, total + self.later_steps)

        self.on_latents(latent_image)
        return super().sample(model_wrap, sigmas, extra_args, observe, noise, latent_image, *args, **kwargs)


def sample(
    model,
    noise: torch.Tensor,
    positive: list,
    negative: list,
    cfg: float,
    sigmas: torch.Tensor,
    after_step: Callable[[int, torch.Tensor], torch.Tensor] | None = None,
    guidance_end: float = 1.0,
) -> torch.Tensor:
    """Deterministic DDIM from inverted noise `f c h w`, with classifier-free guidance; no noise is
    added. `after_step`: as in `sample_ddim`; `guidance_end`: the share of the steps, from the first, with guidance."""
    guider = with_prompts(FirstStepsGuider(model, last_guided(guidance_end, sigmas)), positive, negative, cfg)
    sampler = comfy.samplers.sampler_object("ddim")
    if after_step is not None:
        sampler = comfy.samplers.KSAMPLER(sample_ddim, extra_options={"after_step": after_step})
    with sampling_within_memory("sampling", model, noise, positive, guided=cfg != 1 and guidance_end > 0):
        return run(model, noise, guider, sampler, sigmas)


def last_guided(share: float, sigmas: torch.Tensor) -> float:
    """The σ above which steps are guided, if the first `share` of them are, at least one unless it is 0; `sigmas`:
    descending, one more than steps."""
    steps = int(share * (len(sigmas) - 1) + 0.5)
    return sigmas[max(steps, int(share > 0))].item()


def strength_at(sigma: torch.Tensor, cfg: float, until: float) -> float:
    """`cfg` above `until`; from there on 1, with which the prompt runs alone. `sigma`: of each frame."""
    return cfg if sigma.max() > until else 1.0


class FirstStepsGuider(comfy.samplers.CFGGuider):
    """The host's classifier-free guidance at noise levels above `until`; from there on the prompt runs alone, in half
    the time. What an object looks like is decided in the first steps."""

    def __init__(self, model, until: float):
        super().__init__(model)
        self.until = until

    def predict_noise(self, x, timestep, *args, **options):
        cfg = self.cfg
        self.cfg = strength_at(timestep, cfg, self.until)
        try:
            return super().predict_noise(x, timestep, *args, **options)
        finally:
            self.cfg = cfg


def plain_guider(model, positive: list, negative: list | None, cfg: float) -> comfy.samplers.CFGGuider:
    """The host's own classifier-free guidance; no guidance without a negative prompt."""
    return with_prompts(comfy.samplers.CFGGuider(model), positive, negative, cfg)


def with_prompts(guider: comfy.samplers.CFGGuider, positive: list, negative: list | None, cfg: float):
    """The guider with its prompts and strength."""
    guider.inner_set_conds({"positive": positive} if negative is None else {"positive": positive, "negative": negative})
    guider.set_cfg(cfg)
    return guider


def run(
    model, start: torch.Tensor, guider: comfy.samplers.CFGGuider, sampler, sigmas: torch.Tensor, preview=lambda x0: x0
) -> torch.Tensor:
    """Runs the guider on `start` without added noise; the result is on the host's device for intermediate results.
    `preview` selects the denoised latents to show. Raises `ValueError` if the result is not finite."""
    show = extra("preview", lambda: latent_preview.prepare_callback(model, len(sigmas) - 1))
    advance = None if show else progress(len(sigmas) - 1)

    def callback(step, x0, x, total):
        nonlocal advance
        comfy.model_management.throw_exception_if_processing_interrupted()
        if advance is None and not extra("preview", lambda: show(step, preview(x0), x, total) or True):
            advance = progress(total)  # continue without pictures
        if advance is not None:
            advance(step + 1, total)

    samples = guider.sample(torch.zeros_like(start), start, sampler, sigmas, callback=callback, seed=0)
    check_finite(samples, "values")
    return samples.to(comfy.model_management.intermediate_device())


class Work(comfy.samplers.Sampler):
    """A sampler that does not sample: the host calls it for other work with the model ready to run.

    `work(guider, clip, sigmas, options)`: `guider(x, sigma, **options)` is the denoised clip; `clip` `f c h w` is in
    the model's latent scale.
    """

    def __init__(self, work: Callable[[comfy.samplers.CFGGuider, torch.Tensor, torch.Tensor, dict], object]):
        self.work = work

    def sample(self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, *args, **kwargs):
        self.work(model_wrap, latent_image, sigmas, extra_args)
        return latent_image


def work_on(model, latents: torch.Tensor, conds: dict[str, list], sigmas: torch.Tensor, work, seed: int = 0):
    """Lets the host prepare the MODEL and the prompts `conds` (keyed by the host's names) for the clip `f c h w`, and
    calls `work` as described in `Work`."""
    guider = comfy.samplers.CFGGuider(model)
    guider.inner_set_conds(conds)
    guider.sample(torch.zeros_like(latents), latents, Work(work), sigmas, disable_pbar=True, seed=seed)
