"""Measures the covariate shift inside the host: a model's features against those of the image model it came from.

The taps are hooks that exist only during a UNet call. They belong to a clone's wrapper, inside the inflation's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

import torch
from comfy.patcher_extension import WrappersMP

from ..ei2.covariate_shift import CovariateShift, FeatureStatistics, feature_shift
from .inflation import deflate, require_inflation
from .sampling import without_guidance, work_on
from .unet import Block, check_finite, require_unet, sigma_schedule, transformer_blocks

PROBE = "EI2 probe"
TIMESTEPS = (100, 300, 500, 700, 900)


def covariate_shift(
    model,
    latents: torch.Tensor,
    positive: list,
    timesteps: Sequence[int] = TIMESTEPS,
    seed: int = 0,
    on_step: Callable[[], object] = lambda: None,
) -> CovariateShift:
    """How far an inflated MODEL, tuned or not, moves the features of its image model.

    Both see the same noisy clip, `latents` `f c h w` in the host's latent scale, at each of `timesteps` with the same
    prompt and no guidance; the image model sees each frame on its own. Features are taken directly after the temporal
    modules (or, without modules, at the blocks' outputs). `on_step` is called after each of `2 · len(timesteps)` runs
    of the UNet and may raise to cancel.

    Raises `ValueError` if the model is not inflated, for timesteps it does not have, and for
    features that are not finite or do not vary.
    """
    inflation = require_inflation(model)
    check_timesteps(model, timesteps)
    after_spatial = inflation.settings.position == "after_spatial" and len(inflation.stack) > 0
    probe = partial(_probe, latents=latents, positive=positive, timesteps=timesteps, seed=seed, on_step=on_step)
    host = probe(deflate(model), FeatureTap(after_spatial))
    ours = probe(model, FeatureTap(after_spatial, inflation.stack))

    blocks = transformer_blocks(require_unet(model))
    sums = {block.path: torch.zeros(4, dtype=torch.float64) for block in blocks}
    for expected, statistics in zip(host, ours):
        for path in sums:
            shift = feature_shift(statistics["features", path], expected["features", path])
            module = (0.0, 0.0)
            if ("output", path) in statistics:
                module = feature_shift(statistics["output", path], statistics["input", path])
            sums[path] += torch.tensor([*shift, *module], dtype=torch.float64) / len(timesteps)
    columns = torch.stack(list(sums.values())).T
    check_finite(columns, "features")
    return CovariateShift(block_names(blocks), *columns.tolist(), list(timesteps))


def check_timesteps(model, timesteps: Sequence[int]) -> None:
    """Raises `ValueError` unless there are timesteps and the model has all of them."""
    last = len(sigma_schedule(model)) - 1
    wrong = [timestep for timestep in timesteps if not 0 <= timestep <= last]
    if wrong or not timesteps:
        fault = f"hold {wrong[0]}" if wrong else "are empty"
        raise ValueError(f"The timesteps {fault}: give whole numbers from 0 (clean) to {last} (noise).")


def block_names(blocks: list[Block]) -> list[str]:
    """Short names, numbered like the host's patches: `input 1`, `middle`, `output 3`; `input 4.0` among several."""
    places = [block.place for block in blocks]
    names = [place[0] if place[0] == "middle" else f"{place[0]} {place[1]}" for place in places]
    return [f"{name}.{block.index}" if places.count(block.place) > 1 else name for name, block in zip(names, blocks)]


class FeatureTap:
    """A wrapper around the UNet's forward that collects statistics of features `(b f) d c` by (place, block's path).

    Places: `features`, after each block or (`after_spatial`) before its text cross-attention; `input` and `output` of
    the temporal modules in `stack`. It must run inside the inflation's wrapper, to hook the blocks after it.
    """

    def __init__(self, after_spatial: bool, stack: torch.nn.ModuleDict | None = None):
        self.after_spatial = after_spatial
        self.stack = torch.nn.ModuleDict() if stack is None else stack
        self.timesteps: list[dict[tuple[str, str], FeatureStatistics]] = []

    def next_timestep(self) -> None:
        self.timesteps.append(defaultdict(FeatureStatistics))

    def __call__(self, executor, *args, **kwargs):
        with ExitStack() as hooks:
            for block in transformer_blocks(executor.class_obj):
                self._tap(block, self.timesteps[-1], hooks)
            return executor(*args, **kwargs)

    def _tap(self, block: Block, statistics: dict, hooks: ExitStack) -> None:
        def features(_, inputs, output=None):
            statistics["features", block.path].add(inputs[0] if output is None else output)

        def module(_, inputs, output):
            statistics["input", block.path].add(inputs[0])
            statistics["output", block.path].add(output)

        if self.after_spatial:  # norm2 reads the features after all patches on the self-attention
            handles = [block.module.norm2.register_forward_pre_hook(features)]
        else:
            handles = [block.module.register_forward_hook(features)]
        if block.name in self.stack:
            handles.append(self.stack[block.name].register_forward_hook(module))
        for handle in handles:
            hooks.callback(handle.remove)


def _probe(model, tap: FeatureTap, latents, positive, timesteps, seed, on_step) -> list[dict]:
    """The tap's statistics per timestep; the host's guider runs the MODEL."""
    clone = without_guidance(model)
    clone.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, PROBE, tap)
    generator = torch.Generator("cpu").manual_seed(seed)
    noises = torch.randn(len(timesteps), *latents.shape, generator=generator)

    @torch.no_grad()
    def look(guider, clip: torch.Tensor, sigmas: torch.Tensor, options: dict) -> None:
        for sigma, noise in zip(sigmas, noises.to(clip)):
            tap.next_timestep()
            guider(clip + sigma * noise, sigma * clip.new_ones(len(clip)), **options)
            on_step()

    work_on(clone, latents, {"positive": positive}, sigma_schedule(model)[list(timesteps)], look, seed)
    return tap.timesteps
