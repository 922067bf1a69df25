"""The size of the result, and how pictures of another aspect ratio are fitted to it."""

from __future__ import annotations

from .. import PIXELS_PER_LATENT as STEP  # the VAE reduces the size by this factor

FITS = ("crop", "pad", "stretch")


def check_size(width: int, height: int) -> None:
    """Raises ValueError for a size that is neither 0 nor a positive multiple of 8 pixels."""
    for name, value in (("width", width), ("height", height)):
        if value < 0 or value % STEP:
            low = max(0, value // STEP * STEP)
            nearest = f"{low or 'the source size (0)'} or {low + STEP}"
            raise ValueError(f"{name} is {value}, but must be a multiple of {STEP} for the VAE: use {nearest}.")


def check_fit(fit: str) -> None:
    """Raises ValueError for an unknown `fit`."""
    if fit not in FITS:
        raise ValueError(f"fit is '{fit}', but must be one of: {', '.join(FITS)}.")


def target_size(source: tuple[int, int], width: int, height: int, name: str) -> tuple[int, int]:
    """The result's width and height, multiples of 8, for a source as it is displayed. Raises ValueError."""
    source_width, source_height = source
    if width and height:
        return width, height
    if width:
        return width, max(STEP, round(width * source_height / source_width / STEP) * STEP)
    if height:
        return max(STEP, round(height * source_width / source_height / STEP) * STEP), height
    if min(source) < STEP:
        raise ValueError(
            f"'{name}' is only {source_width} x {source_height} pixels: set width and height to a size of "
            f"at least {STEP} x {STEP}."
        )
    return source_width // STEP * STEP, source_height // STEP * STEP


def scaled_size(source: tuple[int, int], target: tuple[int, int], fit: str) -> tuple[int, int]:
    """The width and height a source is scaled to before cropping or adding bars; fit "none" keeps its size."""
    scales = [wanted / own for wanted, own in zip(target, source)]
    if fit != "stretch":
        scales = [{"crop": max(scales), "pad": min(scales), "none": 1.0}[fit]] * 2
    return tuple(max(1, round(own * scale)) for own, scale in zip(source, scales))
