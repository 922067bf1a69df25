"""A look at how well a clip is learned, while it is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from PIL import Image

from .extras import extra
from .latent_picture import draw

TIMESTEP = 500  # of the 1000: the model sees the composition and has to know the rest


class TunePreview:
    """Every `every` steps a picture for `show(step, picture)`: above the clip, below what the model makes of it, with
    the same noise each time. 0: never."""

    def __init__(self, model, every: int, show: Callable[[int, Image.Image], None]):
        self.model, self.every, self.show = model, every, show

    def after_step(
        self,
        step: int,
        denoise: Callable,
        clean: torch.Tensor,
        schedule: torch.Tensor,
        without_trace: Callable[[], AbstractContextManager],
    ) -> None:
        """`denoise(x, sigma)`, `clean` `f c h w` and `schedule` as `tune` takes them. The model is called
        inside `without_trace()`, so that the training goes on as if it had not been."""
        if not self.every or step % self.every:
            return
        look = lambda: self._look(denoise, clean, schedule, without_trace)
        picture = extra("preview of the tuning", look)
        if picture is not None:
            self.show(step, picture)

    def _look(self, denoise: Callable, clean, schedule, without_trace) -> Image.Image | None:
        sigma = schedule[TIMESTEP].to(clean)
        noise = torch.randn(clean.shape, generator=torch.Generator("cpu").manual_seed(0)).to(clean)
        with torch.no_grad(), without_trace():
            denoised = denoise(clean + sigma * noise, sigma.expand(len(clean)))
        return draw(self.model, [clean, denoised])
